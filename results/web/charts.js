// Curves, what a better Dice costs, importance, slots over time, lesion size against Dice.
"use strict";
const DICE_AXIS = (extra = {}) => axis({ type: "value", name: "validation Dice", nameGap: 34, ...extra });
const tick = value => String(+value.toFixed(3));
const ORDER = { pending: 0, pruned: 0, running: 1, failed: 1, complete: 2 };

function bestOfEach(trials) {
  const best = new Map();
  for (const trial of trials)
    if (trial.status === "complete" && trial.dice > (best.get(trial.enc)?.dice ?? -1)) best.set(trial.enc, trial);
  return best;
}

const points = curve => curve.map((dice, n) => [n + 1, dice]);

function curveOf(trial, best) {
  const leads = best.get(trial.enc) === trial;
  const coloured = trial.status === "complete" || trial.status === "running";
  return {
    type: "line",
    id: trial.id,
    data: points(trial.curve),
    showSymbol: trial.curve.length === 1,
    symbolSize: 5,
    triggerLineEvent: true,
    z: leads ? 8 : ORDER[trial.status] + 2,
    itemStyle: { color: coloured ? colourOf(trial.enc) : ink.faint },
    lineStyle: {
      color: coloured ? colourOf(trial.enc) : ink.faint,
      width: leads ? 2.4 : 1,
      opacity: leads ? 1 : trial.status === "complete" ? 0.38 : 0.25,
      type: trial.status === "running" ? "dashed" : "solid",
    },
    endLabel: { show: leads, formatter: () => trial.enc, color: colourOf(trial.enc), fontWeight: 600, distance: 6 },
    labelLayout: { moveOverlap: "shiftY" },
    emphasis: { lineStyle: { width: 3, opacity: 1 } },
  };
}

// A thousand series are slow; pruned ones beyond the first hundreds are one grey line with gaps.
function merged(trials) {
  return {
    type: "line",
    showSymbol: false,
    silent: true,
    z: 2,
    data: trials.flatMap(trial => [...points(trial.curve), [null, null]]),
    lineStyle: { color: ink.faint, width: 1, opacity: 0.2 },
  };
}

CHARTS.curves = chart => {
  const finals = view.curves === "final";
  const trials = TRIALS.filter(t => (t.role === "final") === finals && visible(t) && t.curve.length);
  const many = trials.length > 300;
  const single = many ? trials.filter(trial => trial.status !== "pruned") : trials;
  const best = bestOfEach(trials);
  const series = single.sort((a, b) => ORDER[a.status] - ORDER[b.status]).map(trial => curveOf(trial, best));
  if (many) series.push(merged(trials.filter(trial => trial.status === "pruned")));
  const narrow = chart.getWidth() < 560;
  const label = rung => narrow ? `${rung.kept}` : `${rung.in} → ${rung.kept}`;
  const lines = finals ? [] : DATA.rungs.map(rung => ({ xAxis: rung.epoch, name: label(rung) }));
  series.push({
    type: "line",
    data: [],
    markLine: {
      silent: true,
      symbol: "none",
      lineStyle: { color: ink.soft, type: [2, 4], width: 1 },
      label: { color: ink.soft, formatter: line => line.name, fontSize: 11.5, position: "end" },
      data: lines,
    },
  });
  const last = finals ? Math.max(1, ...trials.map(trial => trial.budget ?? trial.curve.length)) : BUDGET;
  chart.setOption({
    ...common(),
    grid: { left: 46, right: 96, top: 26, bottom: 44 },
    xAxis: axis({ type: "value", name: "epoch", min: 1, max: Math.max(2, last), minInterval: 1, splitLine: { show: false } }),
    yAxis: DICE_AXIS({ min: 0, axisLabel: { formatter: tick } }),
    tooltip: tooltip(at => BY_ID.has(at.seriesId) ? summary(BY_ID.get(at.seriesId)) : ""),
    series,
  }, { notMerge: true });
};

function front(pairs) {
  let best = -1;
  return pairs.sort((a, b) => a[0] - b[0] || b[1] - a[1]).filter(pair => pair[1] > best && (best = pair[1], true));
}
const COSTS = {
  params: ["parameters, million", 1],
  slot_s: ["time on a slot, minutes", 1 / 60],
  usd: ["US dollars a trial", 1],
};

function scatterOf(encoder, n, trials, complete) {
  const scale = COSTS[view.cost][1];
  return {
    type: "scatter",
    symbol: SYMBOLS[n % SYMBOLS.length],
    symbolSize: complete ? 9 : 6,
    itemStyle: { color: colourOf(encoder), opacity: complete ? 0.9 : 0.25, borderColor: ink.card, borderWidth: +complete },
    z: complete ? 4 : 2,
    emphasis: { scale: 1.6 },
    data: trials.filter(trial => trial.enc === encoder && (trial.status === "complete") === complete)
      .map(trial => ({ value: [trial[view.cost] * scale, trial.dice], id: trial.id })),
  };
}

CHARTS.pareto = chart => {
  const trials = SEARCHED.filter(t => visible(t) && t.dice != null && t[view.cost] != null && !t.repeat);
  const [name, scale] = COSTS[view.cost];
  const best = front(trials.filter(t => t.status === "complete").map(t => [t[view.cost] * scale, t.dice]));
  const steps = best.flatMap((point, n) => n ? [[point[0], best[n - 1][1]], point] : [point]);
  const series = [...COLOUR.keys()].flatMap((encoder, n) =>
    [true, false].map(complete => scatterOf(encoder, n, trials, complete)));
  series.push({ type: "line", data: steps, symbol: "none", silent: true, z: 3, lineStyle: { color: ink.ink, width: 1.4 } });
  const least = range => Math.max(0, Math.floor((range.max - 0.3) * 20) / 20);
  chart.setOption({
    ...common(),
    grid: { left: 50, right: 14, top: 18, bottom: 44 },
    xAxis: axis({ type: "value", name, min: 0, splitLine: { show: false } }),
    yAxis: DICE_AXIS({ scale: true, min: least, axisLabel: { formatter: tick } }),
    tooltip: tooltip(at => at.data.id ? summary(BY_ID.get(at.data.id)) : ""),
    series,
  }, { notMerge: true });
};

const interval = (range, api) => {
  const y = api.coord([0, api.value(0)])[1];
  const ends = { x1: api.coord([api.value(1), 0])[0], x2: api.coord([api.value(2), 0])[0], y1: y, y2: y };
  return { type: "line", shape: ends, style: { stroke: ink.ink, lineWidth: 1.5 } };
};

CHARTS.importance = chart => {
  const { rows, why_empty, method, trials, left_out } = DATA.importance;
  if (!rows.length) return why_empty;
  const out = left_out.length ? ` Left out (searched under a condition, or one value): ${left_out.map(words).join(", ")}.` : "";
  $("#importance-note").textContent =
    `Share in what makes a trial one of the best tenth: ${method} over ${trials} complete trials, 90 % interval.${out}`;
  const upwards = rows.slice(0, 10).reverse();
  chart.setOption({
    ...common(),
    grid: { left: 116, right: 30, top: 8, bottom: 26 },
    xAxis: axis({ type: "value", min: 0, axisLabel: { formatter: v => (100 * v).toFixed(0) + " %" } }),
    yAxis: axis({
      type: "category",
      data: upwards.map(([name]) => words(name)),
      splitLine: { show: false },
      axisLine: { show: false },
      axisLabel: { color: ink.ink, width: 104, overflow: "truncate" },
    }),
    series: [
      {
        type: "bar", silent: true, barWidth: 12, data: upwards.map(row => row[1]),
        itemStyle: { color: ink.accent, opacity: 0.85, borderRadius: [0, 3, 3, 0] },
      },
      {
        type: "custom", silent: true, z: 5, renderItem: interval, encode: { x: [1, 2], y: 0 },
        data: upwards.map((row, n) => [n, row[2], row[3]]),
      },
    ],
  }, { notMerge: true });
};

// Lanes: the slots that trials name; where they name none, as few lanes of a pool as hold its trials without overlap.
function lanes(trials) {
  const ends = new Map();
  return trials.map(trial => {
    if (trial.slot) return trial.slot;
    const pool = trial.pool || "slot";
    if (!ends.has(pool)) ends.set(pool, []);
    const busy = ends.get(pool);
    let lane = busy.findIndex(end => end <= trial.from + 1);
    if (lane < 0) lane = busy.push(0) - 1;
    busy[lane] = trial.to;
    return `${pool} ${lane + 1}`;
  });
}

const box = (range, api) => {
  const [x0, y] = api.coord([api.value(0), api.value(2)]);
  const [x1] = api.coord([api.value(1), api.value(2)]);
  const height = Math.max(3, Math.min(18, api.size([0, 1])[1] * 0.66));
  const shape = echarts.graphic.clipRectByRect(
    { x: x0, y: y - height / 2, width: Math.max(1, x1 - x0 - 0.5), height },
    { x: range.coordSys.x, y: range.coordSys.y, width: range.coordSys.width, height: range.coordSys.height });
  return shape && { type: "rect", shape, style: { ...api.style(), stroke: ink.card, lineWidth: 0.5 } };
};

CHARTS.slots = chart => {
  const known = TRIALS.filter(trial => trial.from && !trial.repeat);
  const now = Math.max(...known.map(trial => trial.to ?? trial.from));
  const trials = known.map(t => ({ ...t, to: t.to ?? now })).filter(t => t.to >= t.from).sort((a, b) => a.from - b.from);
  if (!trials.length) return "No trial has begun yet.";
  const lane = lanes(trials);
  const names = [...new Set(lane)].sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  const began = trials[0].from;
  const length = Math.max(1, now - began);
  const busy = trials.reduce((sum, trial) => sum + trial.to - trial.from, 0) / (length * names.length);
  $("#slots-note").textContent = `${names.length} slots over ${duration(length)}, busy ${(100 * busy).toFixed(0)} % of the time. `
    + "Faint: pruned or failed. Gaps: nothing ran there.";
  host("slots").style.height = Math.max(140, Math.min(420, 70 + names.length * 28)) + "px";
  chart.resize();
  const unit = length < 7200 ? ["minutes", 60] : ["hours", 3600];
  chart.setOption({
    ...common(),
    grid: { left: 88, right: 20, top: 6, bottom: 44 },
    xAxis: axis({ type: "value", name: `${unit[0]} since the first trial`, min: 0, max: length / unit[1],
      axisLabel: { formatter: v => String(+v.toFixed(1)) }, splitLine: { show: false } }),
    yAxis: axis({ type: "category", data: names, axisLabel: { width: 78, overflow: "truncate" }, splitLine: { show: false } }),
    tooltip: tooltip(at => summary(BY_ID.get(at.data.id))),
    series: [{
      type: "custom",
      renderItem: box,
      encode: { x: [0, 1], y: 2 },
      data: trials.map((trial, n) => ({
        id: trial.id,
        value: [(trial.from - began) / unit[1], (trial.to - began) / unit[1], names.indexOf(lane[n])],
        itemStyle: {
          color: colourOf(trial.enc),
          opacity: !visible(BY_ID.get(trial.id)) ? 0.06 : ["pruned", "failed"].includes(trial.status) ? 0.4 : 0.95,
        },
      })),
    }],
  }, { notMerge: true });
};

const finalColour = name => colourOf((TRIALS.find(t => t.role === "final" && t.id.split("/")[0] === name) ?? {}).enc);

CHARTS.sizes = chart => {
  const rows = DATA.sizes ?? [];
  chart.setOption({
    ...common(),
    grid: { left: 50, right: 14, top: 30, bottom: 44 },
    legend: { top: 0, right: 0, textStyle: { color: ink.soft }, itemWidth: 10, itemHeight: 10 },
    xAxis: axis({ type: "log", name: `diameter of the largest lesion, ${DATA.size_unit}`, min: "dataMin", max: "dataMax",
      axisLabel: { formatter: v => String(+v.toPrecision(2)) }, splitLine: { show: false } }),
    yAxis: axis({ type: "value", name: "test Dice", nameGap: 34, min: 0, max: 1 }),
    tooltip: tooltip(at => `<div class="tip">${escaped(at.data.sample)}<br>${escaped(at.seriesName)}:
      Dice <b>${fixed(at.data.value[1], 3)}</b>, ${fixed(at.data.value[0], 1)} ${DATA.size_unit}</div>`),
    series: rows.map((final, n) => ({
      type: "scatter",
      name: final.name,
      symbol: SYMBOLS[n % SYMBOLS.length],
      symbolSize: 7,
      itemStyle: { color: finalColour(final.name), opacity: 0.6 },
      data: final.points.map(([sample, px, dice]) => ({ value: [px, dice], sample })),
    })),
  }, { notMerge: true });
};
