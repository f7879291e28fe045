// The same work as ../fastapi_server.py with Fastify and node-postgres: the token is verified, the body checked against a
// schema, the same columns read and written by the same statements.
import Fastify from "fastify";
import { createVerifier } from "fast-jwt";
import pg from "pg";

const GPUS = { "A100-80GB": [3.5, 1800], "A100-40GB": [2.8, 1500], H100: [4.2, 2200], "V100-32GB": [2.1, 1200] };
const NUMERIC = 1700, BIGINT = 20;
const JOB_COLUMNS = `j.id, j.user_id, j.dataset_id, j.preset_id, j.hyperparameters, j.gpu_config, j.status, j.current_stage, j.progress,
  j.current_epoch, j.total_epochs, j.current_step, j.total_steps, j.current_metrics, j.queued_at, j.started_at,
  j.completed_at, j.estimated_total_cost, j.client_estimated_cost, j.current_cost, j.final_cost, j.error_message,
  j.retry_count, j.external_job_id, j.artifact_id, j.created_at, j.updated_at`;
const OWN = "j.user_id = $1 and j.deleted_at is null and ($2::text is null or j.status = $2)";
// A statement with a name is prepared once for each connection.
const SQL = {
  dataset: `select name, format, status, training_ready, total_training_pairs, total_tokens from lora_datasets
    where id = $1 and user_id = $2 and deleted_at is null`,
  job: `insert into lora_training_jobs as j (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,
    total_steps, estimated_total_cost, client_estimated_cost, hourly_rate)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning ${JOB_COLUMNS}`,
  notification: `insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
    values ($1, 'job_queued', 'Training Job Queued', $2, 'low', $3, $4)`,
  list: `select ${JOB_COLUMNS}, d.name, d.format, d.total_training_pairs from lora_training_jobs j
    join lora_datasets d on d.id = j.dataset_id where ${OWN} order by j.created_at desc, j.id desc limit $3 offset $4`,
  count: `select count(*) from lora_training_jobs j where ${OWN}`,
};

const number = (minimum, maximum, type = "number") => ({ type, minimum, maximum });
const estimateBody = {
  type: "object",
  required: ["dataset_id", "gpu_config", "hyperparameters"],
  properties: {
    dataset_id: { type: "string", format: "uuid" },
    gpu_config: {
      type: "object",
      required: ["type", "count"],
      properties: { type: { type: "string" }, count: number(1, 8, "integer") },
    },
    hyperparameters: {
      type: "object",
      required: ["batch_size", "epochs", "learning_rate", "rank"],
      properties: {
        batch_size: number(1, 64, "integer"),
        epochs: number(1, 20, "integer"),
        learning_rate: number(1e-5, 1e-3),
        rank: number(4, 128, "integer"),
        alpha: { type: "number", exclusiveMinimum: 0 },
        dropout: { type: "number", minimum: 0, exclusiveMaximum: 1 },
      },
    },
  },
};
const newJob = {
  ...estimateBody,
  required: [...estimateBody.required, "preset_id"],
  properties: {
    ...estimateBody.properties,
    preset_id: { enum: ["fast", "balanced", "quality", "custom"] },
    estimated_cost: { type: "number" },
  },
};
const listQuery = {
  type: "object",
  properties: {
    page: { type: "integer", minimum: 1, default: 1 },
    limit: { type: "integer", minimum: 1, maximum: 100, default: 10 },
    status: { enum: ["queued", "initializing", "running", "completed", "failed", "cancelled"] },
  },
};

pg.types.setTypeParser(NUMERIC, Number);
pg.types.setTypeParser(BIGINT, Number);
const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE_URL, max: 10 });
const run = async (client, name, values) => (await client.query({ name, text: SQL[name], values })).rows;

const verify = createVerifier({
  key: process.env.BENCH_SECRET,
  algorithms: ["HS256"],
  allowedAud: "authenticated",
  allowedIss: process.env.BENCH_ISSUER,
});
const failure = (statusCode, message) => Object.assign(new Error(message), { statusCode });
const cents = (amount) => Math.round(amount * 100) / 100;

async function price(client, user, body) {
  const gpu = GPUS[body.gpu_config.type];
  if (!gpu) throw failure(400, "Unknown GPU type");
  const [dataset] = await run(client, "dataset", [body.dataset_id, user]);
  if (!dataset) throw failure(404, "Dataset not found or access denied");
  if (dataset.status !== "ready" || !dataset.training_ready) throw failure(400, "Dataset not ready for training");
  const [rate, speed] = gpu;
  const { count } = body.gpu_config;
  const { batch_size: batch, epochs } = body.hyperparameters;
  const pairs = dataset.total_training_pairs || 1000;
  const tokens = dataset.total_tokens || 200 * pairs;
  const perEpoch = Math.ceil(pairs / batch);
  const steps = perEpoch * epochs;
  const throughput = speed * count;
  const hours = ((steps * ((tokens / pairs) * batch)) / throughput + 600 + 300 * epochs + 300) / 3600;
  const compute = rate * count * hours;
  const terms = {
    estimated_cost: cents(compute + 0.5),
    cost_breakdown: { compute: cents(compute), storage: 0.5 },
    estimated_duration_hours: cents(hours),
    hourly_rate: rate * count,
    training_details: {
      total_steps: steps,
      steps_per_epoch: perEpoch,
      estimated_throughput_tokens_per_sec: throughput,
      dataset_name: dataset.name,
    },
  };
  return [terms, dataset];
}

function shown({ name, format, total_training_pairs, ...job }, dataset) {
  const seen = job.client_estimated_cost;
  return {
    ...job,
    estimate_differs: seen !== null && Math.abs(seen - job.estimated_total_cost) >= 0.005,
    dataset: { name: dataset.name, format: dataset.format, total_training_pairs: dataset.total_training_pairs },
  };
}

const app = Fastify();
app.addHook("onRequest", async (request) => {
  try {
    request.user = verify((request.headers.authorization ?? "").replace(/^Bearer /, "")).sub;
  } catch {
    throw failure(401, "Invalid token");
  }
});

app.post("/api/jobs/estimate", { schema: { body: estimateBody } }, async (request) => {
  const [terms] = await price(pool, request.user, request.body);
  return { success: true, data: terms };
});

app.post("/api/jobs", { schema: { body: newJob } }, async (request, reply) => {
  const { user, body } = request;
  const client = await pool.connect();
  try {
    await client.query("begin");
    const [terms, dataset] = await price(client, user, body);
    const [job] = await run(client, "job", [
      user, body.dataset_id, body.preset_id, body.hyperparameters, body.gpu_config, body.hyperparameters.epochs,
      terms.training_details.total_steps, terms.estimated_cost, body.estimated_cost ?? null, terms.hourly_rate,
    ]);
    await run(client, "notification", [
      user, `Your training job for "${dataset.name}" has been queued and will start shortly`, `/training/jobs/${job.id}`,
      { job_id: job.id, dataset_name: dataset.name },
    ]);
    await client.query("commit");
    reply.code(201);
    return { success: true, data: shown(job, dataset) };
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
});

app.get("/api/jobs", { schema: { querystring: listQuery } }, async (request) => {
  const { page, limit, status = null } = request.query;
  const rows = await run(pool, "list", [request.user, status, limit, (page - 1) * limit]);
  const [{ count: total }] = await run(pool, "count", [request.user, status]);
  const pagination = { page, limit, total, totalPages: Math.ceil(total / limit) };
  return { success: true, data: { jobs: rows.map((row) => shown(row, row)), pagination } };
});

await app.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
