"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const cards = all(".card");
  const entries = new Map(all("nav li").map((entry) => [entry.dataset.for, entry]));
  const tiles = () => all(".tile").filter((tile) => tile.offsetParent !== null);

  document.documentElement.classList.add("js");
  document.querySelector(".tools").hidden = false;
  $("hint").hidden = !document.querySelector(".tile");

  // Colours: the system's unless the reader chose; a page opened from disk may have no storage.
  const memory = {
    read() { try { return localStorage.getItem("energyql-colours") || ""; } catch { return ""; } },
    write(value) { try { localStorage.setItem("energyql-colours", value); } catch { /* not remembered */ } },
  };
  const paint = (value) => {
    if (value) document.documentElement.dataset.theme = value;
    else delete document.documentElement.dataset.theme;
  };
  $("theme").value = memory.read();
  paint($("theme").value);
  $("theme").addEventListener("change", (event) => { paint(event.target.value); memory.write(event.target.value); });

  // Filters and order.
  const number = (value) => (value === undefined ? Infinity : Number(value));
  const listed = new Map([...cards, ...all(".sortable > li")].map((node, place) => [node, place]));
  const sorted = (nodes, order) => [...nodes].sort((a, b) => {
    const [x, y] = [number(a.dataset.energy), number(b.dataset.energy)];
    if (!order || x === y) return listed.get(a) - listed.get(b);
    return (x < y) === (order === "up") ? -1 : 1;
  });
  const apply = () => {
    const wanted = $("search").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const verdict = $("show").value;
    let pictures = 0;
    for (const card of cards) {
      const fits = wanted.every((word) => card.dataset.text.includes(word));
      let left = 0;
      for (const item of all(".wall > li", card)) {
        item.hidden = Boolean(verdict) && !item.classList.contains(verdict);
        left += !item.hidden;
      }
      for (const row of all(".truth tbody tr", card)) {
        row.hidden = Boolean(verdict) && !row.querySelector(".wall > li:not([hidden])");
      }
      card.hidden = !fits || (Boolean(verdict) && left === 0);
      entries.get(card.id).hidden = card.hidden;
      if (!card.hidden) pictures += left;
    }
    const shown = cards.filter((card) => !card.hidden).length;
    $("nothing").hidden = shown > 0;
    const filtered = wanted.length || verdict;
    $("count").textContent = filtered ? `${shown} of ${cards.length} shown, ${pictures} pictures` : "";
    settle();
  };
  const reorder = () => {
    const order = $("order").value;
    for (const wall of all(".sortable")) wall.append(...sorted(wall.children, order));
    const ordered = sorted(cards, order);
    $("main").prepend(...ordered);
    document.querySelector("nav ol").append(...ordered.map((card) => entries.get(card.id)));
    settle();
  };
  $("search").addEventListener("input", apply);
  $("show").addEventListener("change", apply);
  $("order").addEventListener("change", reorder);

  // One stop of the Tab key a wall; arrow keys move inside.
  const settle = () => {
    for (const wall of all(".wall")) {
      const inside = all(".tile", wall);
      const visible = inside.filter((tile) => !tile.parentElement.hidden);
      const current = visible.find((tile) => tile.tabIndex === 0 && tile.hasAttribute("tabindex")) || visible[0];
      for (const tile of inside) tile.tabIndex = tile === current ? 0 : -1;
    }
  };
  const goTo = (tile) => {
    for (const other of all(".tile", tile.closest(".wall"))) other.tabIndex = other === tile ? 0 : -1;
    tile.focus();
  };
  const nearest = (tile, down) => {
    const here = tile.getBoundingClientRect();
    const middle = here.left + here.width / 2;
    let best = null;
    for (const other of tiles()) {
      const there = other.getBoundingClientRect();
      const gap = down ? there.top - here.bottom : here.top - there.bottom;
      if (gap < -1) continue;
      const score = gap * 1000 + Math.abs(there.left + there.width / 2 - middle);
      if (!best || score < best.score) best = { other, score };
    }
    return best && best.other;
  };
  document.addEventListener("keydown", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
    const row = all(".tile", tile.closest(".wall")).filter((other) => other.offsetParent !== null);
    const place = row.indexOf(tile);
    const target = {
      ArrowLeft: row[place - 1],
      ArrowRight: row[place + 1],
      Home: row[0],
      End: row[row.length - 1],
      ArrowUp: event.key === "ArrowUp" ? nearest(tile, false) : null,
      ArrowDown: event.key === "ArrowDown" ? nearest(tile, true) : null,
    }[event.key];
    if (!target) return;
    event.preventDefault();
    goTo(target);
  });

  // The enlarged view reads its numbers from the table that the page shows anyway.
  const view = $("view");
  let open = null;
  const show = (tile) => {
    open = tile;
    const picture = tile.querySelector("img");
    $("view-picture").src = picture.src;
    $("view-picture").alt = picture.alt;
    $("view-picture").classList.toggle("small", picture.naturalWidth <= 64);
    $("view-words").textContent = picture.alt;
    const row = $(tile.dataset.row);
    const heads = all("thead th", row.closest("table")).map((head) => head.textContent);
    const pairs = [...row.cells].map((cell, index) => [heads[index], cell.textContent]);
    const said = ["picture", "verdict", "read off the picture"];  // in the heading and the text
    $("view-numbers").replaceChildren(...pairs.filter(([head]) => !said.includes(head)).flatMap(([head, text]) => {
      const term = document.createElement("dt");
      const data = document.createElement("dd");
      term.textContent = head;
      data.textContent = text;
      return [term, data];
    }));
    const verdict = row.cells[2].textContent;
    $("view-name").textContent = verdict[0].toUpperCase() + verdict.slice(1);
    $("view-name").className = tile.parentElement.className;
    const visible = tiles();
    $("view-previous").disabled = visible[0] === tile;
    $("view-next").disabled = visible[visible.length - 1] === tile;
    if (!view.open) view.showModal();
  };
  const step = (by) => {
    const row = tiles();
    const next = row[row.indexOf(open) + by];
    if (next) show(next);
  };
  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) { goTo(tile); show(tile); }
  });
  $("view-previous").addEventListener("click", () => step(-1));
  $("view-next").addEventListener("click", () => step(1));
  $("view-close").addEventListener("click", () => view.close());
  view.addEventListener("click", (event) => { if (event.target === view) view.close(); });
  view.addEventListener("close", () => { if (open) goTo(open); });
  view.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  // Copying. The old way still works where a page from disk may not use the clipboard.
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* try the old way */ }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.dataset.copy);
      button.textContent = done ? "Copied" : "Not copied";
      $("said").textContent = done ? "The query is copied" : "The query could not be copied";
      button.focus();
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // On a narrow screen the contents would hide the pictures; on a wide one they mark where the reader is.
  if (matchMedia("(max-width: 63.99rem)").matches) $("contents").open = false;
  const watcher = new IntersectionObserver((changes) => {
    for (const change of changes) entries.get(change.target.id).classList.toggle("here", change.isIntersecting);
  }, { rootMargin: "-30% 0px -60% 0px" });
  for (const card of cards) watcher.observe(card);
  settle();
})();
