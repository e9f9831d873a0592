// One picture after the other, one attribute after the other. The server holds the labels; this page shows its state.
// If the state is doubtful, only labels that readers doubt are asked for again; the others stay unless they are clicked.

import { call } from "/static/api.js";
import { $, h, plural, say } from "/static/dom.js";

const ENDS = { false: "All pictures are labelled", true: "You looked at all doubted labels again" };
const SMALL = 128; // pictures up to this side are shown with their pixels
let state = null;
let cells = {}; // labels of this picture so far
let at = 0; // position of the attribute that is asked for
let busy = false;

const current = () => state.attributes[at];
const index = () => state.next[0];
const finished = () => state.next.length === 0;
const again = () => state.again[0];
const isAsked = (place) => !state.doubtful || again().doubted.includes(state.attributes[place].name);
const asked = () => [...state.attributes.keys()].filter(isAsked);
const isGiven = (label) => Boolean(label) || label === 0;

function begin() {
  cells = state.doubtful && !finished() ? { ...again().labels } : {};
  at = finished() ? 0 : asked()[0];
}

function shown(attribute, number) {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(attribute.high - attribute.low)));
  return Number(number).toFixed(Math.min(digits, 12));
}

function question(attribute, place) {
  const now = place === at;
  const row = h("div", { class: "question", role: "group", "aria-label": attribute.name, "aria-current": now ? "step" : null });
  row.append(h("strong", {}, attribute.name));
  if (state.doubtful && isAsked(place)) {
    row.append(h("span", { class: "again" }, `you said ${again().labels[attribute.name]}: look again`));
  }
  const given = cells[attribute.name];
  if (!attribute.answers.length) { // a number
    const span = attribute.high - attribute.low;
    const value = isGiven(given) ? Number(given) : attribute.low + span / 2;
    const out = h("output", {}, isGiven(given) ? shown(attribute, given) : "");
    const slider = h("input", {
      type: "range", min: attribute.low, max: attribute.high, step: span / 100, "aria-label": attribute.name,
      oninput: () => { if (isAsked(place)) at = place; cells[attribute.name] = Number(slider.value); out.textContent = shown(attribute, slider.value); },
    });
    slider.value = value;
    row.append(slider, out, h("button", { type: "button", class: "plain", onclick: () => choose(place, cells[attribute.name]) }, "Accept", h("kbd", {}, "Enter")));
    return row;
  }
  for (const [value, key] of attribute.answers) {
    row.append(h("button", {
      type: "button", class: "plain", "aria-pressed": String(given === value), onclick: () => choose(place, value),
    }, value, key && h("kbd", {}, key)));
  }
  return row;
}

function draw() {
  $("progress-bar").value = state.labelled / state.pictures;
  $("progress-text").textContent = `${state.labelled} of ${plural(state.pictures, "picture")}${state.doubtful ? " looked at again" : ""}`;
  $("work").hidden = finished();
  $("done").hidden = !finished();
  $("keep").hidden = !state.doubtful;
  $("undo").disabled = $("undo-done").disabled = state.last === null && (finished() || at === asked()[0]);
  if (finished()) {
    $("end").textContent = ENDS[state.doubtful];
    $("table").textContent = state.table;
    $("command").textContent = `energyql train MODEL --labels ${state.table} --out FOLDER${state.doubtful ? " --replace" : ""}`;
    return;
  }
  const source = `/api/pictures/${index()}.png`;
  if ($("picture").getAttribute("src") !== source) $("picture").src = source;
  $("picture").alt = `Picture ${index()}`;
  $("number").textContent = `picture ${index()}`;
  $("fields").replaceChildren(...state.attributes.map(question));
  for (const later of state.next.slice(1)) new Image().src = `/api/pictures/${later}.png`;
}

// Ask the server; a failure is shown, and the picture stays.
async function ask(method, path, body) {
  if (busy) return false;
  busy = true;
  try {
    state = await call(method, path, body);
    $("failure").hidden = true;
    return true;
  } catch (problem) {
    $("failure").textContent = problem.drawing ?? String(problem);
    $("failure").hidden = false;
    return false;
  } finally {
    busy = false;
  }
}

async function answer(value) {
  if (busy || finished()) return;
  const place = at;
  const said = `${current().name}: ${value ?? "left open"}`;
  cells[current().name] = value;
  const later = asked().find((other) => other > place);
  if (later !== undefined) {
    at = later;
    draw();
    say(`${said}. ${current().name}?`);
    return;
  }
  if (await ask("POST", "/api/labels", { index: index(), labels: cells })) {
    begin();
    say(finished() ? ENDS[state.doubtful] : `${said}. Picture ${index()}`);
  }
  draw();
}

// A click: it answers the question, or corrects a label that is not asked for.
function choose(place, value) {
  if (busy || finished()) return;
  if (!isAsked(place)) {
    cells[state.attributes[place].name] = value;
    draw();
    return;
  }
  at = place;
  if (current().answers.length) answer(value);
  else accept();
}

function accept() {
  const { name, low, high } = current();
  answer(isGiven(cells[name]) ? Number(cells[name]) : low + (high - low) / 2);
}

const keep = () => answer(cells[current().name]);

async function back() {
  if (busy) return;
  const earlier = finished() ? undefined : asked().findLast((other) => other < at);
  if (earlier !== undefined) {
    at = earlier;
    if (state.doubtful) cells[current().name] = again().labels[current().name];
    else delete cells[current().name];
  } else if (state.last !== null) {
    const last = state.last;
    if (await ask("DELETE", `/api/labels/${last}`)) {
      if (!state.doubtful) state.next = [last, ...state.next.filter((other) => other !== last)];
      begin();
      say(`Back to picture ${last}`);
    }
  }
  draw();
}

function adjust(attribute, key) {
  const { name, low, high } = attribute;
  const value = /^[0-9]$/.test(key)
    ? low + (high - low) * Number(key) / 10
    : (isGiven(cells[name]) ? Number(cells[name]) : (low + high) / 2) + (high - low) / 50 * (key === "ArrowLeft" ? -1 : 1);
  cells[name] = Math.min(high, Math.max(low, value));
  draw();
}

function press(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || state === null) return;
  if (key === "?") $("help").showModal();
  else if (key === "u" || key === "Backspace") back();
  else if (finished()) return;
  else if (key === "s") answer(null);
  else if (key === "Enter" && state.doubtful && event.target.tagName !== "BUTTON") keep();
  else if (!current().answers.length) {
    if (/^[0-9]$/.test(key) || key === "ArrowLeft" || key === "ArrowRight") adjust(current(), key);
    else if (key === "Enter" && event.target.tagName !== "BUTTON") accept();
    else return;
  } else {
    const found = current().answers.find(([, name]) => name.toLowerCase() === key);
    if (!found) return;
    answer(found[0]);
  }
  event.preventDefault();
}

$("picture").addEventListener("load", () => $("picture").classList.toggle("small", $("picture").naturalWidth <= SMALL));
$("keep").addEventListener("click", keep);
$("leave").addEventListener("click", () => answer(null));
$("undo").addEventListener("click", back);
$("undo-done").addEventListener("click", back);
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
document.addEventListener("keydown", press);
if (await ask("GET", "/api/state")) {
  begin();
  draw();
}
