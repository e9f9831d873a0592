// The page of the HTTP API, made from its OpenAPI description.

import { call } from "./api.js";
import { $, h } from "./dom.js";
import { startTheme } from "./theme.js";

const GROUPS = { queries: "Requests", downloads: "Downloads" };

// Text with `names` between backticks, as elements.
function prose(text) {
  return text.split(/`([^`]+)`/).map((part, place) => (place % 2 ? h("code", {}, part) : part));
}

const nameOf = (reference) => reference.split("/").pop();

const typeLink = (name) => h("a", { href: `#type-${name}` }, name);

// The type of a value in words, with links to the named types.
function shape(schema) {
  if (schema.$ref) return [typeLink(nameOf(schema.$ref))];
  if (schema.anyOf) return schema.anyOf.filter(({ type }) => type !== "null").flatMap((each, place) => [place ? " or " : "", ...shape(each)]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return ["list of ", ...shape(schema.items ?? {})];
  if (schema.type === "object") return schema.additionalProperties?.type || schema.additionalProperties?.anyOf ? ["object of ", ...shape(schema.additionalProperties)] : ["object"];
  return [schema.format === "binary" ? "file" : schema.type ?? "any"];
}

function bounds(schema) {
  const said = [];
  for (const each of schema.anyOf ?? [schema]) {
    if (each.minimum !== undefined) said.push(`from ${each.minimum}`);
    if (each.exclusiveMinimum !== undefined) said.push(`above ${each.exclusiveMinimum}`);
    if (each.maximum !== undefined) said.push(`to ${each.maximum}`);
    if (each.minLength || each.minItems) said.push(`at least ${each.minLength ?? each.minItems}`);
    if (each.maxLength) said.push(`at most ${each.maxLength} characters`);
  }
  return said.join(" ");
}

function field(name, schema, required) {
  const usual = schema.default !== undefined && schema.default !== null && JSON.stringify(schema.default) !== "[]" ? `default ${JSON.stringify(schema.default)}` : "";
  const told = [required ? "required" : "", usual, bounds(schema)].filter(Boolean).join(", ");
  return h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, shape(schema)), h("td", {}, prose(schema.description ?? ""), told ? h("span", { class: "faint told" }, told) : null));
}

function table(caption, rows) {
  return h("table", {}, h("caption", {}, caption), h("tbody", {}, rows));
}

const fieldsOf = (schema) => Object.entries(schema.properties ?? {}).map(([name, each]) => field(name, each, schema.required?.includes(name)));

function body(content, schemas) {
  const [kind, { schema }] = Object.entries(content)[0];
  if (!schema.$ref) return h("p", {}, "The body is a file: ", Object.keys(content).join(", "), ".");
  return table(["Body, ", kind], fieldsOf(schemas[nameOf(schema.$ref)]));
}

function answers(responses) {
  return Object.entries(responses).map(([status, { description, content = {} }]) => {
    const schema = content["application/json"]?.schema;
    const type = schema && Object.keys(schema).length ? shape(schema) : [Object.keys(content)[0] ?? ""];
    return h("tr", {}, h("th", { scope: "row" }, status), h("td", {}, type), h("td", {}, status.startsWith("2") && description === "Successful Response" ? "" : prose(description)));
  });
}

function route(path, method, { description, parameters = [], requestBody, responses }, schemas) {
  const [first] = description.split("\n\n");
  return h(
    "details",
    { class: "route" },
    h("summary", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", { class: "path" }, path), h("span", { class: "faint" }, prose(first))),
    parameters.length ? table("Parameters", parameters.map((each) => field(each.name, { ...each.schema, description: each.description ?? (each.in === "path" ? "In the path." : "") }, each.required))) : null,
    requestBody ? body(requestBody.content, schemas) : null,
    table("Answers", answers(responses)),
  );
}

function show({ info, paths, components: { schemas } }) {
  $("version").textContent = `energyql ${info.version}`;
  $("description").replaceChildren(...info.description.split("\n\n").map((part) => h("p", {}, prose(part))));
  const { origin } = location;
  $("example").textContent = [
    `curl ${origin}/api/jobs --json '{"query": "smile AND NOT glasses", "n": 4, "seed": 3}'`,
    `curl ${origin}/api/jobs/ID`,
    `curl ${origin}/api/jobs/ID/pictures/0.png -o first.png`,
  ].join("\n");
  const routes = Object.entries(paths).flatMap(([path, each]) => Object.entries(each).map(([method, one]) => ({ path, method, one })));
  $("routes").replaceChildren(...Object.entries(GROUPS).map(([tag, name]) => h("section", { "aria-label": name }, h("h2", {}, name),
    routes.filter(({ one }) => one.tags.includes(tag)).map(({ path, method, one }) => route(path, method, one, schemas)))));
  const answered = Object.entries(schemas).filter(([name]) => !name.endsWith("Request"));
  $("types").replaceChildren(...answered.map(([name, schema]) => h("details", { class: "route", id: `type-${name}` },
    h("summary", {}, h("code", { class: "path" }, name), h("span", { class: "faint" }, prose((schema.description ?? "").split("\n\n")[0]))), table("Fields", fieldsOf(schema)))));
}

// A link to a type opens its description.
function reveal() {
  const part = document.getElementById(location.hash.slice(1));
  if (part?.matches("details")) { part.open = true; part.scrollIntoView(); }
}

async function start() {
  startTheme();
  try {
    show(await call("GET", "/api/openapi.json"));
  } catch (problem) {
    $("failure").hidden = false;
    $("failure").textContent = problem.message;
    return;
  }
  addEventListener("hashchange", reveal);
  reveal();
}

start();
