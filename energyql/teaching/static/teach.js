// The page of a lesson. The server holds the lesson; this page shows it, and sends what a person says.

import { call } from "/static/api.js";
import { $, button, h, plural, say, typing } from "/static/dom.js";
import { Language } from "/static/language.js";
import { QueryBox } from "/static/querybox.js";
import { startTheme } from "/static/theme.js";
import { Screen } from "./screen.js";

const LOOK_AFTER = 1000; // milliseconds between two looks at the lesson
const ANSWER_AFTER = 300; // the same for an answer that is being drawn
const PAGE = "page-" + Math.random().toString(36).slice(2); // no secret: it says which page wrote last
let info = null;
let current = ""; // the attribute that is taught
let language = new Language([], []);
let busy = false;
let lost = false; // whether the last look at the lesson had no answer

const attribute = () => info.attributes.find(({ name }) => name === current);
const screen = new Screen($("screen"), $("brushes"), { accept: () => accept() });

function fail(problem) {
  $("failure").hidden = !problem;
  $("failure").textContent = problem ? `${problem.message}${problem.hint ? `: ${problem.hint}` : ""}` : "";
}

// What the meter of an attribute says, in one line.
function verdict({ kind, meter }) {
  const answers = Object.entries(meter.counts);
  const counts = (kind === "yes/no" ? answers.toReversed() : answers).map(([name, count]) => `${count} ${name}`).join(", ");
  const percent = (value) => Math.round(100 * value);
  const quality = meter.quality === null ? "" : kind === "continuous"
    ? `; orders pictures with a correlation of ${meter.quality.toFixed(2)} (${meter.low.toFixed(2)} to ${meter.high.toFixed(2)})`
    : `; tells apart ${percent(meter.quality)} of 100 pairs (${percent(meter.low)} to ${percent(meter.high)})`;
  return `${counts}${quality}${meter.usable || !meter.advice ? "" : `. Next: ${meter.advice}`}`;
}

function meterOf(each) {
  const choose = () => { current = each.name; show(); look(); };
  return h("li", {}, h("button", { type: "button", "aria-pressed": String(each.name === current), onclick: choose },
    h("strong", {}, each.name), h("span", { class: each.meter.usable ? "usable" : "faint" }, each.meter.usable ? "usable now" : "not yet usable"),
    h("span", {}), h("span", { class: "faint" }, verdict(each))));
}

function show() {
  const { attributes, taken, drawn, wanted, folder, saved, newest, finished, unsaved, problem, finish, writer } = info;
  if (!attribute() && attributes.length) current = attributes[0].name;
  const before = document.activeElement?.closest?.("#attributes li");
  const place = before ? [...$("attributes").children].indexOf(before) : -1;
  $("attributes").replaceChildren(...attributes.map(meterOf));
  if (place >= 0) $("attributes").children[place]?.querySelector("button").focus();
  $("work").hidden = $("all-how").hidden = !attributes.length;
  $("ask").hidden = !attributes.length && !taken.length;
  $("taken").hidden = !taken.length;
  $("taken").textContent = `The model knows already, and queries may ask for: ${taken.map(({ name }) => name).join(", ")}.`;
  $("undo").disabled = !info.can_undo || reading();
  $("reading-only").hidden = !reading();
  $("rest").disabled = reading();
  $("new").disabled = reading();
  if (problem) fail(problem);
  const pictures = drawn < wanted && !problem ? `${drawn} of ${wanted} pictures are drawn` : `${drawn} pictures`;
  const later = unsaved ? `; your last clicks are not in it: ${unsaved.message}` : newest ? "" : ", and learns from your last clicks in a moment";
  const made = info.trains ? "The model" : "The judge";
  const trained = finished.length ? ` ${finished.join(", ")}: completely trained; Finish again to add later clicks.` : "";
  $("model").textContent = `${pictures}. ${saved ? `${made} is in ${folder}${later}.${trained}` : unsaved ? `${made} was not written: ${unsaved.message}.` : `${made} is written when something was learned.`}`;
  $("command").hidden = !info.use;
  $("command").textContent = info.use;
  $("finish").hidden = !saved || !info.trains || Boolean(finish?.running);
  $("finish").disabled = reading();
  $("finish-stop").hidden = $("finish-bar").hidden = !finish?.running;
  if (finish) showFinish(finish);
  language = new Language(info.keywords, [...attributes, ...taken].map((each) => ({ ...each, values: each.kind === "categorical" ? each.values : [], description: "" })));
  if (writer === "" && !attributes.length) $("new").focus();
}

const reading = () => info.writer !== "" && info.writer !== PAGE;

function showFinish({ running, stage, fraction, gained, problem }) {
  $("finish-bar").value = fraction;
  $("finish-words").textContent = running ? `The complete training: ${stage || "it begins"} ${Math.round(100 * fraction)} %.`
    : problem ? problem.message : gained ? "The complete training is over; its model is in the folder, with a judge." : "The training was cancelled; the same button goes on.";
  $("gained").replaceChildren(...Object.entries(gained || {}).map(([name, words]) => h("li", {}, h("strong", {}, name), ` ${words}`)));
}

// Do something that changes the lesson, after what was begun before; whether it was done.
let last = Promise.resolve();
function change(method, path, body) {
  last = last.then(() => changeNow(method, path, body));
  return last;
}

async function changeNow(method, path, body) {
  busy = true;
  try {
    info = method === "DELETE" ? await call(method, `${path}?page=${PAGE}`) : await call(method, path, { page: PAGE, ...body });
    fail(null);
    return true;
  } catch (problem) {
    fail(problem);
    return false;
  } finally {
    busy = false;
    show();
  }
}

// The pictures to look at next, and the wall.
async function look() {
  if (!current) { await lookAround(); return; }
  const wanted = current;
  $("screen").setAttribute("aria-busy", "true");
  try {
    const wall = await call("GET", `api/wall?attribute=${encodeURIComponent(wanted)}&count=${Screen.size(attribute())}`);
    if (wanted !== current) return;
    screen.show(attribute(), wall.screen);
    $("task").textContent = screen.task;
    $("how").textContent = wall.screen.length ? screen.how : info.drawn ? "Everything on the wall is labelled; ask for pictures, and contradict what is wrong." : "The first pictures are being drawn.";
    $("rest").textContent = "";
    $("rest").append(screen.end, " ", h("kbd", {}, "Enter"));
    $("rest").hidden = !wall.screen.length;
    showSections(wall.sections);
    $("screen").dataset.version = wall.version;
    $("screen").setAttribute("aria-busy", "false");
  } catch (problem) {
    fail(problem);
  }
}

// The beginning of the wall, before there is an attribute.
async function lookAround() {
  try {
    const { sections } = await call("GET", "api/wall");
    if (!current) showSections(sections);
  } catch (problem) {
    fail(problem);
  }
}

function showSections(sections) {
  $("sections").replaceChildren(...sections.map(({ title, count, cells }) => h("div", {}, h("h3", {}, `${title} · ${count}`),
    h("div", { class: "wall" }, cells.map((cell) => wallCell(cell))))));
}

function wallCell({ number, label, guess }) {
  const told = label ?? guess;
  const spec = attribute();
  if (!spec) return h("div", { class: "cell" }, h("img", { src: `api/pictures/${number}.png`, alt: `picture ${number}`, loading: "lazy" }));
  const flip = () => contradict(spec, number, told);
  return h("button", { type: "button", class: "cell", onclick: flip, "aria-label": `picture ${number}: ${label ? `you said ${label}` : `read as ${guess}`}`, disabled: spec.kind === "continuous" },
    h("img", { src: `api/pictures/${number}.png`, alt: "", loading: "lazy" }), label ? h("span", { class: "tag" }, label) : null);
}

async function contradict(spec, number, told) {
  const next = spec.values[(spec.values.indexOf(told) + 1) % spec.values.length];
  if (await change("POST", "api/labels", { labels: { [spec.name]: { [number]: next } } })) {
    say(`picture ${number}: ${next}`);
    await look();
  }
}

async function accept() {
  const labels = screen.labels;
  if (!Object.keys(labels).length) return;
  if (await change("POST", "api/labels", { labels: { [current]: labels } })) {
    say(`${plural(Object.keys(labels).length, "picture")} labelled`);
    await look();
    $("screen").querySelector("button")?.focus({ preventScroll: true });
  }
}

async function undo() {
  if (await change("POST", "api/undo", {})) { say("taken back"); await look(); }
}

// Queries.
const box = new QueryBox($("query"), {
  label: "Query", placeholder: "glasses AND NOT smile", language: () => language, ask: () => ({}),
  changed: (check) => { $("ask-now").disabled = Boolean(check && !check.ok); }, submit: () => askNow(box.text),
});

async function askNow(query, keep = []) {
  if (!query.trim()) { box.focus(); return; }
  try {
    const answer = await call("POST", "api/questions", { query, n: 16, keep });
    contradicted.clear();
    accepted = new Set(keep);
    shown = "";
    showAnswer(answer);
    follow();
  } catch (problem) {
    if (!box.refuse(query, problem)) fail(problem);
  }
}

async function follow() {
  try {
    const answer = await call("GET", "api/questions");
    showAnswer(answer);
    if (!answer.finished) setTimeout(follow, ANSWER_AFTER);
  } catch (problem) {
    fail(problem);
  }
}

let shown = "";
let answered = { query: "", cells: [] }; // what is shown
const contradicted = new Set(); // their numbers with the attribute
let accepted = new Set(); // the numbers of those that stayed from the answer before

function showAnswer({ query, cells, expected, drawn, kept, finished, problem }) {
  $("ask-stop").hidden = finished;
  const price = drawn ? `${plural(drawn, "picture")} drawn for it, ${kept} taken` : "all from the wall";
  const right = expected === null ? "No pictures yet" : `About ${Math.round(100 * expected)} % of these are right, as far as the readers know`;
  const teaches = cells.some(({ readings }) => Object.keys(readings).length);
  $("answer-rest").hidden = !finished || !teaches || reading();
  $("answer-words").textContent = `${right}; ${price}${finished ? "" : ", and more are being drawn"}. ${teaches ? "Click what is wrong: it is a label." : ""}${problem ? ` ${problem.message}` : ""}`;
  const now = JSON.stringify(cells);
  if (now === shown) return;
  shown = now;
  $("answer").replaceChildren(...cells.map(answerCell));
  answered = { query, cells };
}

// What the person did not contradict is a label too, and stays; what is wrong is replaced.
async function confirmRest() {
  $("answer-rest").hidden = true;
  const said = {};
  for (const { number, readings } of answered.cells) {
    if (accepted.has(number)) continue;
    for (const [name, value] of Object.entries(readings)) {
      const { kind } = info.attributes.find((each) => each.name === name);
      if (kind !== "continuous" && !contradicted.has(`${number} ${name}`)) (said[name] ??= {})[number] = value;
    }
  }
  if (Object.keys(said).length && !(await change("POST", "api/labels", { labels: said }))) {
    $("answer-rest").hidden = false;
    return;
  }
  await look();
  await askNow(answered.query, answered.cells.map(({ number }) => number));
}

function answerCell({ number, readings }) {
  const figure = h("figure", {}, h("div", { class: "frame" }, h("img", { src: `api/pictures/${number}.png`, alt: `picture ${number}` })));
  for (const [name, told] of Object.entries(readings)) {
    const spec = info.attributes.find((each) => each.name === name);
    if (spec.kind === "continuous") continue;
    let value = told;
    const chip = button(`${name}: ${value}`, async () => {
      const next = spec.values[(spec.values.indexOf(value) + 1) % spec.values.length];
      if (!(await change("POST", "api/labels", { labels: { [name]: { [number]: next } } }))) return;
      value = next;
      chip.textContent = `${name}: ${value}`;
      chip.classList.add("said");
      contradicted.add(`${number} ${name}`);
      if (name === current) await look();
    }, { class: "chip" });
    figure.append(chip);
  }
  return figure;
}

async function watch() {
  try {
    const before = info;
    const next = await call("GET", "api/lesson");
    if (lost) fail(null);
    lost = false;
    if (!busy) {
      info = next;
      const changed = !before || before.version !== info.version || before.drawn !== info.drawn || before.writer !== info.writer || JSON.stringify(before.finish) !== JSON.stringify(info.finish) || before.saved !== info.saved || before.newest !== info.newest || JSON.stringify([before.problem, before.unsaved]) !== JSON.stringify([info.problem, info.unsaved]);
      if (changed) show();
      if (!current && before?.drawn !== info.drawn) await lookAround();
      if (current && (before?.version !== info.version && reading() || screen.length < Screen.size(attribute()) && before?.drawn !== info.drawn && !screen.touched)) await look();
    }
  } catch (problem) {
    lost = true;
    fail(problem);
  }
  setTimeout(watch, LOOK_AFTER);
}

$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("new").value.trim();
  if (!text) return;
  try {
    info = await call("POST", "api/attributes", { page: PAGE, text });
    current = info.attributes[info.attributes.length - 1].name;
    $("new").value = "";
    $("add-problem").textContent = "";
    show();
    await look();
    $("screen").querySelector("button")?.focus({ preventScroll: true });
  } catch (problem) {
    $("add-problem").textContent = `${problem.message}${problem.hint ? `: ${problem.hint}` : ""}`;
  }
});
$("rest").addEventListener("click", accept);
$("undo").addEventListener("click", undo);
$("ask-now").addEventListener("click", () => askNow(box.text));
$("answer-rest").addEventListener("click", confirmRest);
$("ask-stop").addEventListener("click", async () => showAnswer(await call("DELETE", "api/questions")));
$("take-over").addEventListener("click", async () => { if (await change("POST", "api/writer", {})) await look(); });
$("finish").addEventListener("click", () => change("POST", "api/finish", {}));
$("finish-stop").addEventListener("click", () => change("DELETE", "api/finish"));
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "?") $("help").showModal();
  else if (event.key.toLowerCase() === "u") undo();
  else if (event.key === "Enter" && (event.target === document.body || event.target.closest("#screen"))) accept();
  else if (!screen.key(event)) return;
  event.preventDefault();
});

startTheme();
$("studio").hidden = location.pathname === "/"; // a lesson of the studio has a path of its own
try {
  info = await call("GET", "api/lesson");
  show();
  await look();
} catch (problem) {
  fail(problem);
}
setTimeout(watch, LOOK_AFTER);
