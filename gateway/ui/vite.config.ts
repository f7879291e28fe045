import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/**
 * Tells `public/start.js`, by the name of each page's module, which files that page is made of: they are on their way before
 * the first script has run.
 */
function pageFiles(): Plugin {
  return {
    name: "page-files",
    transformIndexHtml: {
      order: "post",
      handler(html, { bundle = {} }) {
        const chunks = Object.values(bundle).filter((one) => one.type === "chunk");
        const needed = (name: string): string[] => {
          const chunk = chunks.find((one) => one.fileName === name);
          return [name, ...(chunk?.imports ?? []).flatMap(needed)];
        };
        const pages = chunks.flatMap((chunk) => {
          const page = /\/src\/pages\/(.+)\.tsx$/.exec(chunk.facadeModuleId ?? "")?.[1];
          return page ? [[page, [...new Set(needed(chunk.fileName))].filter((file) => !html.includes(file))] as const] : [];
        });
        const text = JSON.stringify(Object.fromEntries(pages));
        // Before the script that reads it, as data: the Content-Security-Policy lets no script be written here.
        return html.replace("<script src", `<script type="application/json" id="page-files">${text}</script>\n    <script src`);
      },
    },
  };
}

/** Beside each file that gets smaller by it, that file compressed as far as it goes: the gateway sends it as it is. */
function compressed(): Plugin {
  return {
    name: "compressed",
    writeBundle({ dir = "dist" }) {
      for (const name of readdirSync(`${dir}/assets`).filter((one) => /\.(js|css)$/.test(one))) {
        const content = readFileSync(`${dir}/assets/${name}`);
        writeFileSync(`${dir}/assets/${name}.br`, brotliCompressSync(content));
        writeFileSync(`${dir}/assets/${name}.gz`, gzipSync(content, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), tailwindcss(), pageFiles(), compressed()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    target: "es2023",
    // Fonts stay files: the Content-Security-Policy allows no data: there.
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        // One file for what every page has and few releases change, one for what pages share: a dozen small ones cost more.
        codeSplitting: {
          groups: [
            { name: "vendor", test: /node_modules\/(react|react-dom|scheduler|react-router|@tanstack)\//, priority: 2 },
            { name: "shared", minShareCount: 3, maxModuleSize: 30_000, priority: 1 },
          ],
        },
      },
    },
  },
  // `npm run dev` talks to a running stack.
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
  // Files share an environment: to make one for each took three quarters of the time.
  test: { environment: "happy-dom", isolate: false, restoreMocks: true },
});
