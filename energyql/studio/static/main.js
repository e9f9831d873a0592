// The page: starts everything, and keeps query, settings, pictures and address together.

import { call, Runner } from "./api.js";
import { Detail } from "./detail.js";
import { $, copy, drawing, h, plural, say } from "./dom.js";
import { asking, QueryBox } from "./editor.js";
import { Language } from "./language.js";
import { SettingsForm } from "./settings.js";
import { decode, encode } from "./share.js";
import { clauseTable, Wall } from "./wall.js";

const NARROW = 430; // pixels of a circuit that fits into the left column
const columns = matchMedia("(min-width: 64rem)"); // two of them
const runner = new Runner();
let info, language, settings, box, wall, detail;
let drawn = null; // what the pictures on the wall answer: {query, settings, model, language, job}
let edit = null; // {index, steps} while a picture is open
let pending = null; // the same, of a link, until its picture is there

function paintTheme(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}

function startTheme() {
  let known = "";
  try { known = localStorage.getItem("energyql-colours") || ""; } catch { /* no storage here */ }
  $("theme").value = known;
  paintTheme(known);
  $("theme").addEventListener("change", ({ target }) => {
    paintTheme(target.value);
    try { localStorage.setItem("energyql-colours", target.value); } catch { /* not remembered */ }
  });
}

const written = () => ({ query: box.text, settings: settings.read(), model: settings.model, language, job: "" });

// A link to what is on the wall, whatever stands in the box by now; before the first picture, to what stands there.
const link = (state = edit) => {
  const from = drawn ?? written();
  return new URL(encode(from.query, from.settings, from.model.fingerprint, state), location.href).href;
};

const remember = () => history.replaceState(null, "", link());

function showCheck(check) {
  $("draw").disabled = check !== null && !check.ok;
  $("circuit").classList.toggle("old", !check?.ok);
  if (!check?.ok) return;
  $("circuit-name").textContent = check.caption;
  const svg = drawing(check.drawing);
  const width = Number(svg.getAttribute("width"));
  svg.style.maxWidth = `${width}px`;
  svg.style.minWidth = `${Math.min(width, Math.max(0.72 * width, 280))}px`;
  $("circuit").replaceChildren(svg);
  placeCircuit(width > NARROW && columns.matches);
  $("explanation").textContent = check.explanation;
}

// A circuit that is too wide to be read beside the pictures goes below them.
function placeCircuit(wide) {
  const card = $("circuit-card");
  const home = wide ? $("main-side") : $("side");
  if (card.parentElement === home) return;
  if (wide) home.append(card);
  else home.firstElementChild.after(card);
}

async function draw(open = null) {
  if (!box.text.trim() || box.broken) { box.focus(); return; }
  if (!settings.valid) { settings.complain(); return; }
  const asked = written();
  $("failure").hidden = true;
  let last = null;
  try {
    const current = await runner.run("/api/jobs", { query: asked.query, ...asked.settings }, (job, fresh) => {
      if (!last) accept({ ...asked, job: job.id }, open);
      last = job;
      wall.add(fresh, job.clauses);
      showJob(job);
      const wanted = pending && fresh.find((picture) => picture.index === pending.index);
      if (wanted) openPending(wanted);
    });
    if (!current) return;
    finish(last);
    if (pending?.steps.length) openPending({ index: pending.index });
  } catch (problem) {
    if (last) fail(problem);
    else if (!box.refuse(asked.query, problem)) complain(problem);
  }
  if (last) pending = null;
}

// The studio draws: what was on the wall makes room.
function accept(asked, open) {
  drawn = asked;
  pending = open;
  edit = null;
  history.replaceState(null, "", link(pending));
  $("failure").hidden = $("downloads").hidden = $("made").hidden = true;
  $("summary").textContent = "";
  wall.reset(asked.settings.n);
  if (!columns.matches) $("pictures").scrollIntoView();
}

function openPending(picture) {
  edit = pending;
  pending = null;
  detail.open(picture, edit.steps, drawn.job);
}

function showJob(job) {
  const running = ["waiting", "running"].includes(job.state);
  $("progress").hidden = !running;
  const text = {
    waiting: job.place ? `Waiting, ${plural(job.place, "request")} before` : "Starting",
    sampling: `Sampling, ${Math.round(100 * job.fraction)} %`,
    drawing: `Drawing, ${job.done} of ${job.total}`,
  }[job.stage];
  $("progress-text").textContent = text ?? job.stage;
  $("progress-bar").value = job.stage === "drawing" ? 0.3 + 0.7 * (job.done / job.total) : 0.3 * job.fraction;
}

function finish(job) {
  $("progress").hidden = true;
  wall.trim();
  if (job.state === "failed") { fail(job.problem); return; }
  const ended = job.problem ? "Given up" : "Cancelled";
  const facts = job.state === "cancelled" ? [`${ended} after ${plural(job.done, "picture")}`] : [];
  if (job.problem) complain(job.problem);
  if (job.done) facts.push(job.summary);
  $("summary").textContent = facts.join(". ");
  $("nothing").hidden = job.done > 0;
  if (!job.done) return;
  $("downloads").hidden = false;
  for (const [id, file] of [["get-grid", "grid.png"], ["get-zip", "result.zip"], ["get-provenance", "provenance.json"]]) {
    $(id).href = `/api/jobs/${job.id}/${file}`;
  }
  $("clauses").hidden = false;
  $("clauses").replaceChildren(...clauseTable(job, wall.pictures, drawn.language));
  $("made").hidden = false;
  $("facts").replaceChildren(...job.facts.flatMap(({ name, text }) => [h("dt", {}, name), h("dd", {}, text)]));
}

function fail(problem) {
  $("progress").hidden = true;
  wall.trim();
  $("nothing").hidden = wall.pictures.length > 0;
  complain(problem);
}

function complain(problem) {
  $("failure").hidden = false;
  $("failure").replaceChildren(h("pre", {}, problem.drawing || problem.message || String(problem)));
}

function showWords() {
  const rows = settings.model.attributes.map(({ written: name, kind, values, low, high, description }) => {
    const form = { "yes/no": name, categorical: `${name} = ${values[0]}`, continuous: `${name} > ${(low + high) / 2}` }[kind];
    const what = [description, values.length ? values.join(", ") : kind === "continuous" ? `${low} to ${high}` : ""].filter(Boolean).join("; ");
    return h("div", { class: "word" }, h("button", { type: "button", class: "chip", title: `Add ${form} to the query`, onclick: () => box.add(form) }, name), h("span", { class: "faint" }, what));
  });
  $("attributes").replaceChildren(...rows);
  $("words-summary").textContent = plural(rows.length, "attribute");
  $("examples").replaceChildren(...settings.model.examples.map((text) => h("button", { type: "button", class: "chip", onclick: () => { box.text = text; draw(); } }, text)));
}

function changedSetting(id) {
  if (id === "model") {
    language = new Language(info.keywords, settings.model.attributes);
    showWords();
  }
  if (id === "model" || id === "semantics") box.check();
}

function restore() {
  const asked = decode(location.hash);
  if (!asked) return false;
  $("view").close(); // if another picture is open
  const lost = settings.write(asked.settings);
  changedSetting("model");
  box.text = asked.query;
  const other = asked.fingerprint && asked.fingerprint !== settings.model.fingerprint;
  const notes = [
    lost.length ? `This studio does not offer ${lost.join(", ")}.` : "",
    other ? "The link was made with other weights: its pictures may differ." : "",
  ].filter(Boolean);
  $("banner").hidden = !notes.length;
  $("banner").textContent = notes.join(" ");
  draw(asked.edit);
  return true;
}

async function start() {
  startTheme();
  $("nothing").firstElementChild.append(...Array.from({ length: 4 }, () => h("span", { class: "frame" })));
  try {
    info = await call("GET", "/api/info");
  } catch (problem) {
    $("banner").hidden = false;
    $("banner").textContent = problem.message;
    return;
  }
  $("version").textContent = `energyql ${info.version}`;
  settings = new SettingsForm(info, changedSetting);
  language = new Language(info.keywords, settings.model.attributes);
  wall = new Wall((picture) => {
    detail.open(picture, [], drawn.job);
    edit = detail.state;
    remember();
  });
  box = new QueryBox($("query"), { label: "Query", placeholder: "smile AND NOT (glasses OR beard)", language: () => language, ask: () => asking(settings.read()), changed: showCheck, submit: () => draw() });
  detail = new Detail({
    limits: info.limits,
    drawn: () => drawn ?? written(),
    link,
    neighbour: (picture, by) => (picture.image ? wall.neighbour(picture, by) : null),
    edited: (state) => { edit = state; remember(); },
    closed: (picture) => { edit = null; if (!pending) remember(); wall.focus(picture.position); },
  });
  showWords();
  $("draw").addEventListener("click", () => draw());
  $("cancel").addEventListener("click", () => { runner.cancel(); say("Cancelling"); });
  $("copy-link").addEventListener("click", async () => {
    const done = await copy(link());
    $("copy-link").textContent = done ? "Copied" : "Not copied";
    say(done ? "The link is copied" : "The link could not be copied");
    setTimeout(() => { $("copy-link").textContent = "Copy link"; }, 1600);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("view").open) draw();
  });
  window.addEventListener("hashchange", restore);
  $("settings").open = columns.matches;
  columns.addEventListener("change", () => { if (box.checked) showCheck(box.checked); });
  if (!restore()) {
    box.text = settings.model.examples[0] ?? "";
    box.focus();
  }
}

start();
