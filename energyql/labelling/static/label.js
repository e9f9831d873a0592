// One picture after the other, one attribute after the other. The server holds the labels; this page shows its state.

import { call } from "/static/api.js";
import { $, h, plural, say } from "/static/dom.js";

const SMALL = 128; // pictures up to this side are shown with their pixels
let state = null;
let cells = {}; // labels of this picture so far
let at = 0; // position of the attribute that is asked for
let busy = false;

const current = () => state.attributes[at];
const index = () => state.next[0];
const finished = () => state.next.length === 0;

function shown(attribute, number) {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(attribute.high - attribute.low)));
  return Number(number).toFixed(Math.min(digits, 12));
}

function question(attribute, place) {
  const asked = place === at;
  const row = h("div", { class: "question", role: "group", "aria-label": attribute.name, "aria-current": asked ? "step" : null });
  row.append(h("strong", {}, attribute.name));
  const given = cells[attribute.name];
  if (!attribute.answers.length) { // a number
    const span = attribute.high - attribute.low;
    const value = given ?? attribute.low + span / 2;
    const out = h("output", {}, given === undefined || given === null ? "" : shown(attribute, given));
    const slider = h("input", {
      type: "range", min: attribute.low, max: attribute.high, step: span / 100, "aria-label": attribute.name,
      oninput: () => { at = place; cells[attribute.name] = Number(slider.value); out.textContent = shown(attribute, slider.value); },
    });
    slider.value = value;
    row.append(slider, out, h("button", { type: "button", class: "plain", onclick: () => { at = place; accept(); } }, "Accept", h("kbd", {}, "Enter")));
    return row;
  }
  for (const [value, key] of attribute.answers) {
    row.append(h("button", {
      type: "button", class: "plain", "aria-pressed": String(given === value), onclick: () => { at = place; answer(value); },
    }, value, key && h("kbd", {}, key)));
  }
  return row;
}

function draw() {
  $("progress-bar").value = state.labelled / state.pictures;
  $("progress-text").textContent = `${state.labelled} of ${plural(state.pictures, "picture")}`;
  $("work").hidden = finished();
  $("done").hidden = !finished();
  $("undo").disabled = $("undo-done").disabled = at === 0 && state.last === null;
  if (finished()) {
    $("table").textContent = state.table;
    $("command").textContent = `energyql train MODEL --labels ${state.table} --out FOLDER`;
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
  const said = `${current().name}: ${value ?? "left open"}`;
  cells[current().name] = value;
  at += 1;
  if (at < state.attributes.length) {
    draw();
    say(`${said}. ${current().name}?`);
    return;
  }
  if (await ask("POST", "/api/labels", { index: index(), labels: cells })) {
    cells = {};
    at = 0;
    say(finished() ? "All pictures are labelled" : `${said}. Picture ${index()}`);
  } else at -= 1;
  draw();
}

function accept() {
  const { name, low, high } = current();
  answer(cells[name] ?? low + (high - low) / 2);
}

async function back() {
  if (busy) return;
  if (at > 0) {
    at -= 1;
    delete cells[current().name];
  } else if (state.last !== null) {
    const last = state.last;
    if (await ask("DELETE", `/api/labels/${last}`)) {
      state.next = [last, ...state.next.filter((other) => other !== last)];
      cells = {};
      say(`Back to picture ${last}`);
    }
  }
  draw();
}

function adjust(attribute, key) {
  const { name, low, high } = attribute;
  const value = /^[0-9]$/.test(key)
    ? low + (high - low) * Number(key) / 10
    : (cells[name] ?? (low + high) / 2) + (high - low) / 50 * (key === "ArrowLeft" ? -1 : 1);
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
$("leave").addEventListener("click", () => answer(null));
$("undo").addEventListener("click", back);
$("undo-done").addEventListener("click", back);
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
document.addEventListener("keydown", press);
if (await ask("GET", "/api/state")) draw();
