"use strict";
// The page of clinic.serve.pages: film, the model's outlines, accept / redraw / reject. Films leave this page only to
// the service that it came from, with the token; nothing is stored in the browser.

const by = (id) => document.getElementById(id);
const OUTLINE = "#ffbe00"; // seen by colour-blind eyes too, on black and on white
const DRAWN = "#00d5ff";
const EDGE = "mammosearch-" + crypto.getRandomValues(new Uint32Array(4)).join("");

let films = [];
let place = -1;
let film = null; // what the service said of the film that is shown
let drawn = []; // closed lines in the film's pixels
let line = null; // the one under the pen
let busy = false;

function say(text, bad = false) {
  by("status").textContent = text;
  by("status").classList.toggle("bad", bad);
}

async function ask(path, body, kind) {
  const headers = { Authorization: "Bearer " + by("token").value.trim(), "Content-Type": kind };
  const response = await fetch(path, { method: "POST", headers, body });
  if (response.status === 503) {
    await new Promise((wait) => setTimeout(wait, 1000 * Number(response.headers.get("Retry-After") || 2)));
    return ask(path, body, kind);
  }
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail || "status " + response.status);
  return response;
}

async function next() {
  place += 1;
  film = null;
  drawn = [];
  line = null;
  setDrawing(false);
  if (place >= films.length) {
    document.querySelector("main").hidden = true;
    say(films.length + " film" + (films.length === 1 ? "" : "s") + " seen");
    return;
  }
  const name = films[place].name;
  say("Looking at " + name + " ...");
  try {
    film = await (await ask("roi/look", films[place], "application/dicom")).json();
  } catch (error) {
    note(name, "not usable: " + error.message);
    say(name + ": " + error.message, true);
    return error.message.startsWith("a bearer token") ? undefined : next();
  }
  by("picture").src = "data:image/png;base64," + film.picture;
  by("place").textContent = place + 1 + " of " + films.length + ": " + name;
  by("found").textContent = film.lesions.length
    ? film.lesions.map((l) => "Lesion " + l.lesion + ": " + l.area_px + " px, mean probability " + l.probability).join("; ")
    : "The model marks nothing. That does not mean that there is nothing.";
  document.querySelector("main").hidden = false;
  fit();
  say("");
}

function fit() {
  if (!film) return;
  const zoom = Number(by("zoom").value);
  const wide = Math.max(1, by("view").clientWidth - 2);
  const above = by("view").getBoundingClientRect().top + window.scrollY;
  const high = Math.max(320, window.innerHeight - above - 12); // the whole film on the first screen
  const scale = zoom * Math.min(wide / film.columns, high / film.rows);
  by("stage").style.width = film.columns * scale + "px";
  by("stage").style.height = film.rows * scale + "px";
  const canvas = by("lines");
  canvas.width = Math.min(8192, Math.round(film.columns * scale * devicePixelRatio));
  canvas.height = Math.min(8192, Math.round(film.rows * scale * devicePixelRatio));
  paint();
}

function paint() {
  const canvas = by("lines");
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.setTransform(canvas.width / film.columns, 0, 0, canvas.height / film.rows, 0, 0);
  pen.translate(0.5, 0.5); // a pixel's coordinates are those of its centre
  pen.lineWidth = (2 * devicePixelRatio * film.columns) / canvas.width;
  const redrawing = by("redraw").getAttribute("aria-pressed") === "true";
  pen.strokeStyle = OUTLINE;
  pen.setLineDash(redrawing ? [4 * pen.lineWidth, 3 * pen.lineWidth] : []);
  film.lesions.forEach((lesion) => lesion.outlines.forEach((points) => stroke(pen, points, true)));
  pen.strokeStyle = DRAWN;
  pen.setLineDash([]);
  drawn.forEach((points) => stroke(pen, points, true));
  if (line) stroke(pen, line, false);
  by("undo").disabled = by("save").disabled = drawn.length === 0;
}

function stroke(pen, points, closed) {
  pen.beginPath();
  points.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  if (closed) pen.closePath();
  pen.stroke();
}

function at(event) {
  const frame = by("lines").getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * film.columns - 0.5;
  const y = ((event.clientY - frame.top) / frame.height) * film.rows - 0.5;
  return [Math.min(Math.max(x, 0), film.columns - 1), Math.min(Math.max(y, 0), film.rows - 1)];
}

function setDrawing(on) {
  by("redraw").setAttribute("aria-pressed", String(on));
  by("lines").classList.toggle("drawing", on);
  if (!on) drawn = [];
  if (film) paint();
}

function begin(event) {
  if (by("redraw").getAttribute("aria-pressed") !== "true" || event.button !== 0) return;
  by("lines").setPointerCapture(event.pointerId);
  line = [at(event)];
}

function move(event) {
  if (!line) return;
  line.push(at(event));
  paint();
}

function end() {
  if (!line) return;
  const far = line.some(([x, y]) => Math.hypot(x - line[0][0], y - line[0][1]) > 2);
  if (line.length >= 3 && far) drawn.push(line);
  line = null;
  paint();
}

async function decide(decision) {
  if (!film || busy) return;
  busy = true;
  const file = films[place];
  const said = JSON.stringify({ decision, outlines: decision === "redraw" ? drawn : [] });
  const head = (kind) => "--" + EDGE + "\r\nContent-Type: " + kind + "\r\n\r\n";
  const body = new Blob([head("application/json"), said, "\r\n", head("application/dicom"), file, "\r\n--" + EDGE + "--\r\n"]);
  try {
    const response = await ask("roi/decide", body, 'multipart/related; type="application/json"; boundary=' + EDGE);
    const kept = response.headers.get("X-Film");
    const link = (response.headers.get("Content-Type") || "").startsWith("application/dicom") ? await response.blob() : null;
    note(file.name, decision + (kept ? ", kept as " + kept : ", not kept by the service"), link);
    await next();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
  }
}

function note(name, text, blob) {
  const item = document.createElement("li");
  item.textContent = name + ": " + text + " ";
  if (blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name.replace(/\.[^.]*$/, "") + ".seg.dcm";
    link.textContent = "segmentation";
    item.append(link);
  }
  by("done").append(item);
}

function undo() {
  drawn.pop();
  paint();
}

const KEYS = {
  a: () => decide("accept"), r: () => by("redraw").click(), x: () => decide("reject"),
  z: undo, s: () => drawn.length && decide("redraw"), n: () => film && next(),
};

by("films").addEventListener("change", () => {
  films = [...by("films").files];
  place = -1;
  by("done").textContent = "";
  if (by("open").reportValidity()) next();
});
by("open").addEventListener("submit", (event) => event.preventDefault());
by("accept").addEventListener("click", () => decide("accept"));
by("reject").addEventListener("click", () => decide("reject"));
by("save").addEventListener("click", () => decide("redraw"));
by("skip").addEventListener("click", () => film && next());
by("undo").addEventListener("click", undo);
by("redraw").addEventListener("click", () => setDrawing(by("redraw").getAttribute("aria-pressed") !== "true"));
by("lines").addEventListener("pointerdown", begin);
by("lines").addEventListener("pointermove", move);
by("lines").addEventListener("pointerup", end);
by("lines").addEventListener("pointercancel", end);
by("zoom").addEventListener("input", fit);
window.addEventListener("resize", fit);
for (const id of ["brightness", "contrast"]) {
  by(id).addEventListener("input", () => {
    by("picture").style.filter = "brightness(" + by("brightness").value + ") contrast(" + by("contrast").value + ")";
  });
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=password], input[type=file]");
  if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key.toLowerCase()]) {
    event.preventDefault();
    KEYS[event.key.toLowerCase()]();
  }
});
