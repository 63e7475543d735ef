// Keys that mean the same on every page.

// Does what a key stands for, unless somebody is typing.
export function pressed(event, keys) {
  const typing = event.target.matches("input:not([type=range]), textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!press) return;
  event.preventDefault();
  press();
}

// Escape, from anywhere on a page, also while typing: nothing is more urgent. However long it is
// held, it counts once; not its first event, which may have closed a list, but whichever comes.
export function onEscape(stop) {
  let held = false;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    if (!held || !event.repeat) stop();
    held = true;
  }, true);
  document.addEventListener("keyup", (event) => { held &&= event.key !== "Escape"; }, true);
}

// Arrows move along a group; only Enter or Space choose, for some choices move a microscope.
export function stepThrough(group) {
  group.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    event.target[`${way}ElementSibling`]?.focus();
  });
}
