// Downloads of files of a job. A browser shows no error when one fails, such as after a restart of the studio.

import { h, say } from "./dom.js";

const GONE = "The studio no longer has these pictures: draw them again.";

export function startDownloads() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[download][href^="/api/jobs/"]');
    if (!link) return;
    event.preventDefault();
    fetchFile(link);
  });
}

async function fetchFile(link) {
  link.parentElement.querySelector(":scope > .gone")?.remove();
  try {
    const answer = await fetch(link.href);
    if (!answer.ok) throw answer.status === 404 ? { message: GONE } : await answer.json();
    const name = answer.headers.get("content-disposition")?.match(/filename="([^"]+)"/)?.[1] ?? "";
    const url = URL.createObjectURL(await answer.blob());
    h("a", { href: url, download: link.download || name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (problem) {
    const text = problem instanceof Error ? "The studio does not answer: is it still running?" : problem.message;
    link.after(h("span", { class: "gone", role: "alert" }, text));
    say(text);
  }
}
