import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  // Fonts stay files: the Content-Security-Policy allows no data: there.
  build: { target: "es2023", assetsInlineLimit: 0, reportCompressedSize: false },
  // `npm run dev` talks to a running stack.
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
  test: { environment: "happy-dom", restoreMocks: true },
});
