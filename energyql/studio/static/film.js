// The row of steps under an enlarged picture, and a slider between the pictures of two steps.

import { h } from "./dom.js";

// `pictures`: the start and one for each step; `steps`: texts of the steps; `choose(place)` shows one picture.
export function film({ pictures, steps, at, choose }) {
  return pictures.map((picture, place) => {
    const name = place ? steps[place - 1] : "As it was";
    return h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: "tile",
          "aria-current": place === at ? "step" : undefined,
          "aria-label": place ? `Step ${place}: ${name}` : name,
          title: name,
          onclick: () => choose(place),
        },
        h("img", { src: picture.image, alt: "", width: picture.width, height: picture.height }),
        h("span", { class: "below" }, name),
      ),
    );
  });
}

// One picture; or, if there is one before it, both, with a slider that uncovers one or the other.
export function stage(picture, before, wiping, at, moved) {
  const image = (each, extra = {}) => {
    const node = h("img", { src: each.image, alt: each.alt, width: each.width, height: each.height, ...extra });
    if (each.width <= 64) node.classList.add("small");
    return node;
  };
  const frame = (name, ...parts) => {
    const node = h("span", { class: name }, ...parts);
    node.style.setProperty("--shape", picture.width / picture.height);
    return node;
  };
  if (!before || !wiping) return frame("frame", image(picture));
  const over = image(before, { class: "over", alt: "As it was" });
  const line = h("i", { class: "line", "aria-hidden": "true" });
  const put = (share) => {
    over.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    line.style.left = `${share}%`;
  };
  const slider = h("input", { type: "range", min: 0, max: 100, class: "wipe", "aria-label": "Wipe between before and after", oninput: () => { put(Number(slider.value)); moved(Number(slider.value)); } });
  slider.value = at;
  put(at);
  return frame("frame wiping", image(picture), over, line, slider);
}
