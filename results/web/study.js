// The study's data, what of it is shown, and what all charts share. The other scripts build on this one.
"use strict";
const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const DATA = JSON.parse($("#data").textContent);
const TRIALS = DATA.trials;
const BY_ID = new Map(TRIALS.map(trial => [trial.id, trial]));
const STATUSES = ["complete", "running", "pruned", "failed", "pending"];
const SYMBOLS = ["circle", "rect", "triangle", "diamond", "pin", "arrow", "roundRect", "emptyCircle"];
const COLOUR = new Map(DATA.encoders.map(({ name, colour }) => [name, colour === null ? "other" : "e" + colour]));
const SEARCHED = TRIALS.filter(trial => trial.role !== "final");
const BUDGET = DATA.budget ?? Math.max(1, ...SEARCHED.map(trial => trial.budget ?? 1));

const escaped = text => String(text ?? "").replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const fixed = (value, digits = 4) => value == null ? "–" : value.toFixed(digits);
const duration = s => s == null ? "–"
  : s < 120 ? s.toFixed(0) + " s" : s < 7200 ? (s / 60).toFixed(0) + " min" : (s / 3600).toFixed(1) + " h";
const dollars = usd => usd == null ? "–" : "$" + (usd < 10 ? usd.toFixed(3) : usd.toFixed(2));
const setting = value => value == null ? "–"
  : typeof value !== "number" ? String(value)
  : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(1)
  : String(+value.toPrecision(4));
const words = name => name.replaceAll("_", " ");
const keyOf = encoder => `<i class="key" style="--c:var(--${COLOUR.get(encoder) ?? "other"})"></i>`;

// What is shown: by encoder, by status, and by the ranges brushed on the parallel axes.
const view = {
  encoders: new Set([...COLOUR.keys(), ""]),
  statuses: new Set(STATUSES),
  brushed: null,
  cost: "params",
  curves: "search",
};
const chosen = trial => view.encoders.has(trial.enc) && view.statuses.has(trial.status);
const visible = trial => chosen(trial) && (!view.brushed || view.brushed.has(trial.id));

// A canvas needs colours as they are, not as variables: an element's computed colour is one.
const probe = document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
const ink = {};
function readColours() {
  const names = ["paper", "card", "ink", "soft", "faint", "line", "accent", "tie", "warn", "other", ...COLOUR.values()];
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    ink[name] = getComputedStyle(probe).color;
  }
  probe.style.color = "light-dark(#000, #fff)";
  ink.dark = getComputedStyle(probe).color !== "rgb(0, 0, 0)";
}
const colourOf = encoder => ink[COLOUR.get(encoder) ?? "other"];

const axis = (extra = {}) => ({
  nameGap: 26,
  nameLocation: "middle",
  nameTextStyle: { color: ink.soft },
  axisLine: { lineStyle: { color: ink.line } },
  axisTick: { show: false },
  splitLine: { lineStyle: { color: ink.line, opacity: 0.7 } },
  ...extra,
  axisLabel: { color: ink.soft, hideOverlap: true, ...extra.axisLabel },
});
const common = () => ({
  animation: false,
  textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 },
});
const tooltip = formatter => ({
  trigger: "item",
  backgroundColor: "transparent",
  borderWidth: 0,
  padding: 0,
  confine: true,
  extraCssText: "box-shadow:none",
  formatter,
});
const summary = trial => `<div class="tip"><b>${escaped(trial.id)}</b> ${keyOf(trial.enc)}${escaped(trial.enc)}<br>
Dice <b>${fixed(trial.dice)}</b> · epoch ${trial.best ?? "–"} of ${trial.epochs} · ${escaped(trial.status)}<br>
<i>${DATA.settings.map((name, n) => `${escaped(words(name))} ${escaped(setting(trial.set[n]))}`).slice(0, 5).join(" · ")}
· ${duration(trial.slot_s)} · ${dollars(trial.usd)}</i></div>`;

// Charts are drawn when they come near the window, and again when what is shown, the width or the light changes.
const CHARTS = {};
const charts = {};
const host = name => document.getElementById(name);
function draw(name) {
  const drawn = CHARTS[name](charts[name]);
  const why = typeof drawn === "string" ? drawn : "";
  if (why) {
    charts[name]?.dispose();
    charts[name] = null;
    host(name).className = "chart none";
    host(name).textContent = why;
  }
}
function begin(name) {
  if (name in charts || !host(name)) return;
  charts[name] = echarts.init(host(name), null, { renderer: "canvas" });
  charts[name].on("click", event => openTrial(event.data?.id ?? event.seriesId));
  draw(name);
}
function redraw(except = []) {
  for (const name in charts) if (charts[name] && !except.includes(name)) draw(name);
}
const openTrial = id => { if (BY_ID.has(id)) location.hash = "trial-" + encodeURIComponent(id) };
