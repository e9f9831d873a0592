// Lists the versions of the documentation in the sidebar, and says so on pages of an old one. docs/build.py writes the
// versions, newest first, in front of this script, which the pages of all versions load.
{
  const list = document.getElementById("versions");
  const root = new URL(".", document.currentScript.src);
  const { version, page } = list.dataset;
  const newest = VERSIONS.find((each) => each.released);

  const link = ({ name, released, pages }) => {
    const anchor = document.createElement("a");
    anchor.href = new URL(`${name}/${pages.includes(page) ? page : "index.html"}`, root);
    anchor.textContent = released ? name : `${name} (unreleased)`;
    if (name === version) anchor.setAttribute("aria-current", "true");
    return anchor;
  };

  list.append("Versions: ", ...VERSIONS.flatMap((each, i) => (i ? [", ", link(each)] : [link(each)])));
  list.hidden = false;

  if (newest && VERSIONS.findIndex((each) => each.name === version) > VERSIONS.indexOf(newest)) {
    const note = document.createElement("p");
    note.className = "old-version";
    note.append(`This is the documentation of version ${version}. The newest version is `, link(newest), ".");
    document.addEventListener("DOMContentLoaded", () => document.querySelector("article").prepend(note));
  }
}
