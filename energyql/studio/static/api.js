// Calls of the HTTP API. An error of any cause is thrown as a `Problem` of the API.

const LOST = {
  error: "NoAnswer",
  message: "the studio does not answer",
  hint: "is it still running?",
  spans: [],
  drawing: "the studio does not answer",
};

// Fields of the body that are null are left out.
export async function call(method, path, body, signal) {
  let answer;
  try {
    const content = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body, (name, value) => value ?? undefined) };
    answer = await fetch(path, { method, signal, ...content });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw LOST;
  }
  const found = await answer.json().catch(() => LOST);
  if (!answer.ok) throw found;
  return found;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The one job that a part of the page shows: a new job, once it is accepted, ends the last one.
export class Runner {
  constructor() {
    this.id = null;
    this.asked = this.turn = 0; // number of jobs that were requested, and of those that were accepted
    window.addEventListener("pagehide", () => this.abandon());
  }

  // Start a job, and call `update(job, fresh)` with its new pictures until it ends; false if a new job replaced it.
  async run(path, body, update) {
    const asked = ++this.asked;
    const job = await call("POST", path, body);
    if (asked !== this.asked) {
      call("DELETE", `/api/jobs/${job.id}`).catch(() => {});
      return false;
    }
    return this.follow(job, update);
  }

  // The same as `run`, for a job that the studio has accepted already.
  async follow(job, update) {
    this.asked += 1;
    this.cancel();
    const turn = ++this.turn;
    this.id = job.id;
    let seen = 0;
    for (let wait = 60; ; wait = Math.min(wait * 1.3, 400)) {
      seen += job.pictures.length;
      update(job, job.pictures);
      if (!working(job)) break;
      await pause(wait);
      if (turn !== this.turn) return false;
      const next = await call("GET", `/api/jobs/${job.id}?after=${seen}`);
      if (turn !== this.turn) return false;
      job = next;
    }
    this.id = null;
    return true;
  }

  // Cancel the job; a later request for it shows when it has ended.
  cancel() {
    if (this.id === null) return;
    call("DELETE", `/api/jobs/${this.id}`).catch(() => {});
    this.id = null;
  }

  // When the page is left, its job is cancelled, so that it does not delay the next one.
  abandon() {
    if (this.id !== null) fetch(`/api/jobs/${this.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  // Cancel the job, and show nothing of it any more.
  forget() {
    this.asked += 1;
    this.turn += 1;
    this.cancel();
  }
}

export const working = (job) => ["waiting", "running"].includes(job.state);
