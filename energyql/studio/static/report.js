// The report of a drawing: progress, verdict, downloads, clauses and settings.

import { working } from "./api.js";
import { clauseTable } from "./clauses.js";
import { $, h, plural } from "./dom.js";
import { code } from "./paper.js";
import { rounds } from "./share.js";
import { sentence } from "./querybox.js";

const FILES = [["get-grid", "grid.png"], ["get-zip", "result.zip"], ["get-provenance", "provenance.json"]];

const METHODS = [
  [/^(slice|langevin|predictor)/, "random pictures that fit"],
  [/^(ode|descent|published)/, "random pictures, moved until they fit"],
];
const RULES = { exact: "", product: "approximate probabilities", lace: "scores in place of probabilities" };

export function reportRuns(store) {
  store.on(["run"], ({ run }) => { if (run) showRun(run); });
  store.on(["failure"], ({ failure }) => showFailure(failure));
}

function showRun(run) {
  const { job } = run;
  $("asked").replaceChildren(...title(run), made(run));
  $("progress").hidden = !working(job);
  if (working(job)) {
    showProgress(job);
    $("summary").textContent = "";
    $("hint").hidden = $("downloads").hidden = $("clauses").hidden = $("made").hidden = true;
    return;
  }
  const ended = job.problem ? "Given up" : "Cancelled";
  const facts = job.state === "cancelled" ? [`${ended} after ${plural(job.done, "picture")}`] : [];
  if (job.done) facts.push(job.summary);
  $("summary").textContent = facts.join(". ");
  const some = job.done > 0;
  $("hint").hidden = $("downloads").hidden = $("clauses").hidden = $("made").hidden = !some;
  if (!some) return;
  for (const [id, file] of FILES) $(id).href = `/api/jobs/${job.id}/${file}`;
  $("clauses").replaceChildren(...clauseTable(job, run.pictures, run.language));
  $("facts").replaceChildren(...job.facts.flatMap(({ name, text }) => [h("dt", {}, name), h("dd", {}, text)]));
}

function title({ query, language, vary, photo, job }) {
  if (photo && !vary) {
    const far = job.photograph ? `the colours differ by ${Math.round(100 * job.photograph.pixel_error)} % on average` : "";
    return [h("strong", {}, "Your photograph, as the model draws it"), h("span", { class: "faint" }, far)];
  }
  return [vary ? h("strong", {}, likeness(vary)) : "", code(vary?.wanted ?? query, language)];
}

// The model, the seed, and how the pictures were drawn, in words; the names of the settings are its tooltip.
function made({ settings: { model, seed, sampler, semantics }, vary, photo }) {
  const how = vary || photo ? [] : [METHODS.find(([names]) => names.test(sampler))?.[1] ?? sampler, RULES[semantics] ?? semantics];
  return h("span", { class: "faint", title: `sampler ${sampler}, semantics ${semantics}` }, [model, `seed ${seed}`, ...how].filter(Boolean).join(" · "));
}

// The origin of variations; those of variations name both rounds.
export function likeness(vary) {
  return rounds(vary).toReversed().map(({ indices }) => `like ${indices.map((index) => `#${index}`).join(", ")}`).join(" of those ").replace("l", "L");
}

function showProgress(job) {
  const text = {
    waiting: job.place ? `Waiting, ${plural(job.place, "request")} before` : "Starting",
    sampling: `Sampling, ${Math.round(100 * job.fraction)} %`,
    drawing: `Drawing, ${job.done} of ${job.total}`,
  }[job.stage];
  $("progress-text").textContent = text ?? job.stage;
  $("progress-bar").value = job.stage === "drawing" ? 0.3 + 0.7 * (job.done / job.total) : 0.3 * job.fraction;
}

function showFailure(failure) {
  $("failure").hidden = !failure;
  $("failure").replaceChildren(failure ? h("p", {}, [failure.message ?? String(failure), failure.hint].filter(Boolean).map(sentence).join(" ")) : "");
}
