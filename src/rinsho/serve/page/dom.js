// Elements from plain values. Text becomes text nodes only: nothing that a report or a model says is read as HTML.

export const byId = (id) => document.getElementById(id);

/** An element: `class`, `text`, `data` and `on` are special, other keys are properties or, with a dash, attributes. */
export function el(tag, settings = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(settings)) {
    if (value === undefined || value === null) continue;
    if (key === "class") made.className = value;
    else if (key === "text") made.textContent = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "on") for (const [name, action] of Object.entries(value)) made.addEventListener(name, action);
    else if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Saves a text as a file on this machine; it does not pass through the server. */
export function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Lets arrow keys, Home and End move among elements that share one tab stop; `along` is called with the new one. */
export function moveWith(keys, elements, along) {
  return (event) => {
    const all = elements();
    const here = all.indexOf(event.target.closest(keys.of));
    const steps = { [keys.next]: here + 1, [keys.previous]: here - 1, Home: 0, End: all.length - 1 };
    if (here < 0 || !(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    const place = steps[event.key];
    const next = all[keys.around ? (place + all.length) % all.length : Math.max(0, Math.min(place, all.length - 1))];
    event.preventDefault();
    next.focus();
    along(next);
  };
}

/** Puts a text into a field as if it had been typed. */
export function fillIn(field, text) {
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
