"use strict";
// Draws the report that stands as JSON in the page. All text goes in as text; Plotly's markup is escaped.
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const { kernels, wholes, roof } = report;
  const byId = (id) => document.getElementById(id);
  const INK = "#1d2733", SOFT = "#66727f", MAIN = "#d9660b", BLUE = "#2166ac", GREY = "#a9b4c0";
  const PEERS = ["#2166ac", "#1b7837", "#762a83", "#8c510a", "#01665e"];
  const known = (x) => x !== null && x !== undefined;
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function digits(value) {
    if (!known(value)) return "-";
    return Math.abs(value) >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : String(+value.toPrecision(3));
  }
  function duration(seconds) {
    if (!known(seconds)) return "-";
    for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["us", 1e-6]])
      if (seconds >= scale) return `${+(seconds / scale).toPrecision(3)} ${unit}`;
    return `${+(seconds / 1e-9).toPrecision(3)} ns`;
  }
  const percent = (part) => (known(part) ? `${Math.round(100 * part)} %` : "-");
  const share = (k) => (k.seconds ? k.roof / k.seconds : null);
  const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);
  function make(tag, text, parent, cls) {
    const made = document.createElement(tag);
    if (known(text)) made.textContent = text;
    if (cls) made.className = cls;
    if (parent) parent.append(made);
    return made;
  }

  // ---- one kernel, with everything behind it
  const aside = byId("kernel");
  const TABS = {
    schedule: (k) => `chosen by: ${k.chosen}\n\n${k.schedule.join("\n") || "(the plain nest)"}\n\n` +
      `what it computes\n\n${k.program.join("\n")}`,
    explain: (k) => k.explain.join("\n"),
    nest: (k) => k.nest,
    source: (k) => k.source,
  };
  let shown = null, tab = "schedule";

  function open(n, wanted) {
    if (!kernels[n]) return;
    shown = n;
    tab = wanted || tab;
    const k = kernels[n];
    aside.hidden = false;
    aside.querySelector("h2").textContent = k.title;
    const times = [duration(k.seconds) + (k.how ? ` (${k.how})` : ""), `predicted ${duration(k.predicted)}`,
      `roofline ${duration(k.roof)} (${k.level})`, `${percent(share(k))} of it`];
    aside.querySelector(".hint").textContent = `${k.operations ? k.operations + " \u2014 " : ""}${times.join(", ")}`;
    const nav = aside.querySelector("nav");
    nav.replaceChildren();
    for (const name of Object.keys(TABS)) {
      const button = make("button", name === "source" ? `source (${k.language})` : name, nav, name === tab ? "on" : "");
      button.dataset.tab = name;
      button.onclick = () => open(n, name);
    }
    aside.querySelector("pre").textContent = TABS[tab](k);
    aside.querySelector("pre").scrollTop = 0;
    for (const other of document.querySelectorAll("[data-kernel]"))
      other.classList.toggle("open", +other.dataset.kernel === n);
    history.replaceState(null, "", `#kernel=${n}&tab=${tab}`);
    ownTrials(k);
  }
  function shut() {
    aside.hidden = true;
    for (const other of document.querySelectorAll(".open")) other.classList.remove("open");
    history.replaceState(null, "", "#");
  }
  function fromAddress() {
    const found = /^#kernel=(\d+)(?:&tab=(\w+))?$/.exec(location.hash);
    if (found) open(+found[1], found[2] in TABS ? found[2] : undefined);
  }
  byId("close").onclick = shut;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") shut();
    const at = event.target.closest?.("[data-kernel]");
    if (event.key === "Enter" && at) open(+at.dataset.kernel);
  });
  document.addEventListener("click", (event) => {
    const at = event.target.closest("[data-kernel]");
    if (at) open(+at.dataset.kernel);
  });
  window.addEventListener("hashchange", fromAddress);

  // ---- plots
  const axis = (title, more) => ({ title: { text: title, font: { size: 12, color: SOFT } }, gridcolor: "#eef1f5",
    zeroline: false, linecolor: "#dfe5ec", tickfont: { size: 11, color: SOFT }, ...more });
  const layout = (x, y, more) => ({ xaxis: x, yaxis: y, margin: { l: 62, r: 18, t: 12, b: 46 }, hovermode: "closest",
    font: { family: "system-ui, sans-serif", color: INK }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    legend: { orientation: "h", y: 1.08, x: 0, font: { size: 12 } }, ...more });
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  function plot(id, traces, look) {
    const at = byId(id);
    Plotly.react(at, traces, look, { ...CONFIG, displayModeBar: id === "roofline" ? "hover" : false });
    at.removeAllListeners?.("plotly_click");
    at.on("plotly_click", (event) => {
      const n = event.points[0].customdata;
      if (Number.isInteger(n)) open(n);
    });
  }
  const empty = (id, text) => {
    byId(id).classList.add("empty");
    byId(id).style.height = "auto";
    make("p", text, byId(id), "hint");
  };

  function roofline() {
    const placed = kernels.map((k, n) => ({ ...k, n })).filter((k) => k.flops > 0);
    const moving = kernels.length - placed.length;
    const compared = wholes.filter((w) => w.flops > 0 && w.bytes > 0);
    const rates = [], traces = [];
    const point = (flops, bytes, seconds) => {
      rates.push([flops / bytes, flops / seconds / 1e9]);
      return [flops / bytes, flops / seconds / 1e9];
    };
    const series = (name, rows, marker) => {
      if (rows.length)
        traces.push({ type: "scatter", mode: "markers", name, x: rows.map((r) => r.at[0]), y: rows.map((r) => r.at[1]),
          text: rows.map((r) => r.text), customdata: rows.map((r) => r.n ?? null), hovertemplate: "%{text}<extra></extra>", marker });
    };
    const label = (k, seconds, what) => `<b>${plain(cut(k.title, 70))}</b><br>${plain(cut(k.operations || "", 70))}<br>${what} ` +
      `${duration(seconds)}, ${digits(k.flops / seconds / 1e9)} GFLOP/s, ${digits(k.bytes / seconds / 1e9)} GB/s<br>` +
      `${percent(k.roof / seconds)} of the roofline (${k.level})`;
    const measured = placed.filter((k) => k.seconds).map((k) => ({ n: k.n, at: point(k.flops, k.bytes, k.seconds), text: label(k, k.seconds, "measured") }));
    const predicted = placed.filter((k) => k.predicted).map((k) => ({ n: k.n, at: point(k.flops, k.bytes, k.predicted), text: label(k, k.predicted, "predicted") }));
    series("predicted", predicted, { symbol: "circle-open", size: 11, color: GREY, line: { width: 1.6 } });
    const names = [...new Set(compared.flatMap((w) => Object.keys(w.peers)))];
    names.forEach((name, i) => series(name, compared.filter((w) => w.peers[name]).map((w) => ({
      n: w.kernels.length === 1 ? w.kernels[0] : null, at: point(w.flops, w.bytes, w.peers[name].seconds),
      text: `<b>${plain(cut(w.title, 70))}</b><br>${plain(name)} ${duration(w.peers[name].seconds)}` +
        (w.peers[name].ratio ? `<br>autotune is ${w.peers[name].ratio.toFixed(2)} times as fast` : "") })),
      { symbol: "x", size: 9, color: PEERS[i % PEERS.length] }));
    const several = compared.filter((w) => w.seconds && w.kernels.length !== 1);
    series("autotune, the whole", several.map((w) => ({ at: point(w.flops, w.bytes, w.seconds),
      text: `<b>${plain(cut(w.title, 70))}</b><br>the whole ${duration(w.seconds)}, ${digits(w.flops / w.seconds / 1e9)} GFLOP/s` })),
      { symbol: "diamond", size: 11, color: INK });
    series("measured", measured, { size: 11, color: MAIN, line: { color: "#fff", width: 1 } });
    if (!rates.length) return empty("roofline", "Nothing here was measured or predicted that computes with numbers.");
    const floats = Object.entries(roof.peaks).filter(([name]) => /^b?f\d/.test(name));
    const peaks = floats.length ? floats : Object.entries(roof.peaks);
    const peak = Math.max(...peaks.map((p) => p[1])) / 1e9;
    const knees = Object.values(roof.levels).map((rate) => peak / (rate / 1e9));
    const low = Math.min(...rates.map((r) => r[0] / 1.5), Math.min(...knees) / 4);
    const high = Math.max(...rates.map((r) => r[0] * 3), Math.max(...knees) * 3);
    const bottom = Math.max(Math.min(...rates.map((r) => r[1] / 3), peak / 30), peak / 3e4);
    const below = measured.filter((m) => m.at[1] < bottom).length;
    const lines = Object.entries(roof.levels).map(([name, rate]) => {
      const knee = peak / (rate / 1e9);
      const x = knee < high ? [low, Math.max(knee, low), high] : [low, high];
      return { type: "scatter", mode: "lines", name, x, y: x.map((v) => Math.min(peak, v * rate / 1e9)), showlegend: false,
        line: { color: name === "DRAM" ? INK : GREY, width: name === "DRAM" ? 1.8 : 1.2 }, hoverinfo: "skip" };
    });
    const notes = lines.map((line) => {
      const rate = roof.levels[line.name] / 1e9, x = Math.max(low, (bottom * 1.3) / rate);
      return { x: Math.log10(x), y: Math.log10(x * rate), text: `${line.name} ${digits(rate)} GB/s`, showarrow: false,
        xanchor: "left", yanchor: "bottom", xshift: 8, font: { size: 10.5, color: SOFT }, bgcolor: "rgba(255,255,255,.75)" };
    });
    for (const [name, rate] of peaks) {
      lines.push({ type: "scatter", mode: "lines", name, x: [low, high], y: [rate / 1e9, rate / 1e9], showlegend: false,
        line: { color: GREY, width: 1, dash: "dot" }, hoverinfo: "skip" });
      notes.push({ x: Math.log10(high), y: Math.log10(rate / 1e9), text: `${name} peak ${digits(rate / 1e9)} GFLOP/s`, showarrow: false,
        xanchor: "right", yanchor: "bottom", font: { size: 10.5, color: SOFT } });
    }
    const top = Math.max(peak * 2, ...rates.map((r) => r[1] * 1.5));
    plot("roofline", [...lines, ...traces], layout(axis("flops for each byte that must move", { type: "log", dtick: "D2", range: [Math.log10(low), Math.log10(high)] }),
      axis("GFLOP/s", { type: "log", dtick: "D2", range: [Math.log10(bottom), Math.log10(top)] }), { annotations: notes }));
    byId("roof-note").textContent = (moving ? `${moving} that only move data have no place here; their bandwidth is in the tables. ` : "") +
      (below ? `${below} more lie below: a double click shows all.` : "");
  }

  // From red far below the roofline over orange to green on it.
  const STOPS = [[178, 24, 43], [240, 163, 94], [42, 127, 98]];
  function color(part) {
    const at = 2 * Math.min(1, Math.max(0, part || 0)), n = Math.min(1, Math.floor(at));
    return `rgb(${STOPS[n].map((c, i) => Math.round(c + (at - n) * (STOPS[n + 1][i] - c))).join(", ")})`;
  }

  function times() {
    const rows = kernels.map((k, n) => ({ n, k })).filter((r) => r.k.seconds);
    if (!rows.length) return empty("times", "No kernel was measured.");
    const rest = wholes.flatMap((w) => w.rest).filter((r) => r.seconds > 0);
    const all = rows.reduce((sum, r) => sum + r.k.seconds, 0) + rest.reduce((sum, r) => sum + r.seconds, 0);
    const label = (k, n) => cut(`${n} ${/^kernel \d+$/.test(k.title) && k.operations ? k.operations : k.title}`, 34);
    const bars = { type: "bar", orientation: "h", name: "kernel", showlegend: false, y: rows.map((r) => label(r.k, r.n)),
      x: rows.map((r) => r.k.seconds * 1e6), customdata: rows.map((r) => r.n), hovertemplate: "%{text}<extra></extra>", textposition: "none",
      text: rows.map((r) => `<b>${plain(r.k.title)}</b><br>${plain(cut(r.k.operations, 80))}<br>${duration(r.k.seconds)}, ${percent(r.k.seconds / all)} of the time, ` +
        `${percent(share(r.k))} of the roofline`),
      marker: { color: rows.map((r) => color(share(r.k))) } };
    const other = { type: "bar", orientation: "h", showlegend: false, y: rest.map((r) => cut(r.title, 32)), x: rest.map((r) => r.seconds * 1e6),
      marker: { color: GREY }, text: rest.map((r) => `<b>${plain(r.title)}</b><br>${duration(r.seconds)}, ${percent(r.seconds / all)} of the time<br>${plain(r.reason)}`),
      hovertemplate: "%{text}<extra></extra>", textposition: "none" };
    const count = rows.length + rest.length;
    byId("times").style.height = `${Math.max(380, 60 + 17 * count)}px`;
    byId("times").parentNode.classList.toggle("wide", count > 24);
    byId("curves").parentNode.classList.toggle("wide", count > 24);
    byId("time-note").textContent = `${wholes.length > 1 ? "Case by case" : "In the order in which they run"}; ${duration(all)} together. `;
    make("span", "far from", make("span", null, byId("time-note"), "scale"));
    make("i", null, byId("time-note").lastChild);
    make("span", "on the roofline", byId("time-note").lastChild);
    const labels = [...bars.y, ...other.y];
    const margin = { l: 30 + 6.2 * Math.max(...labels.map((t) => t.length)), r: 10, t: 8, b: 42 };
    plot("times", rest.length ? [bars, other] : [bars], layout(axis("us"), axis("", { autorange: "reversed", type: "category" }), { margin, bargap: 0.25 }));
  }

  // ---- tuning
  const best = (trials) => {
    let least = Infinity;
    return trials.map((t) => (least = Math.min(least, t.seconds ?? Infinity))).map((s) => (s < Infinity ? s : null));
  };
  function curves(byTime) {
    byId("by-trial").className = byTime ? "" : "on";
    byId("by-time").className = byTime ? "on" : "";
    const rows = kernels.map((k, n) => ({ k, n })).filter((r) => r.k.trials.some((t) => known(t.seconds)));
    const seen = new Set(), traces = [];
    for (const { k, n } of rows) {
      const least = best(k.trials), first = least.find(known);
      const key = JSON.stringify(k.trials.map((t) => t.seconds));
      if (seen.has(key)) continue;
      seen.add(key);
      traces.push({ type: "scatter", mode: "lines+markers", name: plain(cut(k.title, 28)), showlegend: false, x: k.trials.map((t, i) => (byTime ? t.at : i + 1)),
        y: least.map((s) => (s ? s / first : null)), customdata: k.trials.map(() => n), line: { shape: "hv", width: 1.6 }, marker: { size: 4 },
        text: least.map((s) => `<b>${plain(cut(k.title, 60))}</b><br>best so far ${duration(s)}`), hovertemplate: "%{text}<extra></extra>" });
    }
    const trials = rows.reduce((sum, r) => sum + r.k.trials.length, 0);
    byId("tuning-note").textContent = rows.length ? `The best time so far of ${traces.length} kernels over ${trials} trials, beside the first choice's.` : "";
    if (!rows.length) {
      byId("by-trial").hidden = byId("by-time").hidden = true;
      return empty("curves", "Nothing is stored of a search for these kernels: a report with --budget 2s tunes them first.");
    }
    plot("curves", traces, layout(axis(byTime ? "seconds of tuning" : "trial", { type: byTime ? "linear" : "log" }),
      axis("time, the first choice's is 1", { tickformat: ".2f" })));
  }
  byId("by-trial").onclick = () => curves(false);
  byId("by-time").onclick = () => curves(true);
  function ownTrials(k) {
    const at = byId("trials");
    at.hidden = !k.trials.some((t) => known(t.seconds));
    at.style.display = at.hidden ? "none" : "";
    if (at.hidden) return;
    const x = k.trials.map((_, i) => i + 1), failed = k.trials.filter((t) => !known(t.seconds)).length;
    plot("trials", [
      { type: "scatter", mode: "markers", name: "trial", x, y: k.trials.map((t) => (known(t.seconds) ? t.seconds * 1e6 : null)), marker: { color: GREY, size: 6 },
        text: k.trials.map((t) => duration(t.seconds)), hovertemplate: "trial %{x}: %{text}<extra></extra>" },
      { type: "scatter", mode: "lines", name: "best so far", x, y: best(k.trials).map((s) => (s ? s * 1e6 : null)), line: { shape: "hv", color: MAIN }, hoverinfo: "skip" },
    ], layout(axis(failed ? `trial (${failed} failed)` : "trial"), axis("us", { type: "log" }), { margin: { l: 52, r: 8, t: 26, b: 36 },
      legend: { orientation: "h", y: 1.22, x: 0, font: { size: 11 } } }));
  }

  // ---- the graph
  function graph() {
    const drawn = wholes.filter((w) => w.graph);
    const which = byId("which");
    drawn.forEach((w, n) => (make("option", cut(w.title, 90), which).value = n));
    which.hidden = drawn.length < 2;
    const show = () => {
      const parsed = new DOMParser().parseFromString(drawn[+which.value || 0].graph, "image/svg+xml");
      byId("graph").replaceChildren(document.importNode(parsed.documentElement, true));
    };
    which.onchange = show;
    if (drawn.length) show();
    else empty("graph", "No kernel is known here.");
  }

  // ---- tables
  function table(id, heads, rows) {
    const at = byId(id), head = make("tr", null, make("thead", null, at));
    heads.forEach(([name, kind]) => make("th", name, head, kind));
    const body = make("tbody", null, at);
    for (const { cells, n } of rows) {
      const row = make("tr", null, body);
      if (known(n)) { row.dataset.kernel = n; row.tabIndex = 0; }
      cells.forEach((cell, i) => make("td", known(cell.text) ? cell.text : cell, row, [heads[i][1], cell.cls].filter(Boolean).join(" ")));
    }
  }
  function tables() {
    const names = [...new Set(wholes.flatMap((w) => Object.keys(w.peers)))];
    const failed = wholes.some((w) => w.message || w.status !== "ok");
    const N = "number";
    table("comparison", [["", "text"], ["dtype"], ["from"], ["time", N], ["default", N], ["GFLOP/s", N], ["GB/s", N], ["% roof", N], ["trials", N],
      ...names.flatMap((name) => [[name, N], ["ratio", N]]), ...(failed ? [["status"], ["", "text"]] : [])],
    wholes.map((w) => ({ n: w.kernels.length === 1 ? w.kernels[0] : null, cells: [w.title, w.dtype, w.source, duration(w.seconds), duration(w.default),
      digits(w.flops && w.seconds ? w.flops / w.seconds / 1e9 : null), digits(w.bytes && w.seconds ? w.bytes / w.seconds / 1e9 : null),
      w.roof && w.seconds ? digits(100 * w.roof / w.seconds) : "-", String(w.trials || "-"),
      ...names.flatMap((name) => {
        const peer = w.peers[name];
        if (!peer) return ["-", "-"];
        return [duration(peer.seconds), peer.ratio ? { text: `${peer.ratio.toFixed(2)}x`, cls: peer.ratio >= 1 ? "better" : "worse" } : "-"];
      }), ...(failed ? [w.status, w.message] : [])] })));
    const all = kernels.reduce((sum, k) => sum + (k.seconds || 0), 0);
    table("kernels", [["#", N], ["kernel", "text"], ["operations", "text"], ["time", N], ["share", N], ["predicted", N], ["GFLOP/s", N], ["GB/s", N], ["% roof", N], ["chosen by"]],
      kernels.map((k, n) => ({ n, cells: [String(n), k.title, k.operations, duration(k.seconds), all && k.seconds ? percent(k.seconds / all) : "-", duration(k.predicted),
        k.seconds ? digits(k.flops / k.seconds / 1e9) : "-", k.seconds ? digits(k.bytes / k.seconds / 1e9) : "-", k.seconds ? digits(100 * share(k)) : "-",
        k.chosen.split(" ")[0]] })));
    const rest = wholes.flatMap((w) => w.rest);
    byId("rest-section").hidden = !rest.length;
    table("rest", [["", "text"], ["times", N], ["time", N], ["why", "text"]], rest.map((r) => ({ cells: [r.title, String(r.count || "-"), duration(r.seconds), r.reason] })));
    table("environment", [["", ""], ["", "text"]], report.environment.map((row) => ({ cells: row })));
    byId("environment").tHead.remove();
    for (const note of report.notes) make("li", note, byId("notes"));
  }
  function tiles() {
    const add = (value, text) => { const at = make("div", null, byId("tiles"), "tile"); make("b", value, at); make("span", text, at); };
    const measured = kernels.filter((k) => k.seconds);
    const sum = measured.reduce((s, k) => s + k.seconds, 0), least = measured.reduce((s, k) => s + k.roof, 0);
    if (wholes.length === 1 && wholes[0].seconds) add(duration(wholes[0].seconds), "a call");
    else add(String(wholes.length), "cases");
    add(String(kernels.length), kernels.length === 1 ? "kernel" : "kernels");
    if (sum) add(percent(least / sum), "of the roofline, all kernels together");
    for (const name of [...new Set(wholes.flatMap((w) => Object.keys(w.peers)))]) {
      const ratios = wholes.map((w) => w.peers[name]?.ratio).filter((r) => r > 0);
      if (ratios.length) add(`${Math.exp(ratios.reduce((s, r) => s + Math.log(r), 0) / ratios.length).toFixed(2)}x`,
        ratios.length > 1 ? `as fast as ${name}, geometric mean` : `as fast as ${name}`);
    }
    const trials = kernels.reduce((s, k) => s + k.trials.length, 0);
    if (trials) add(digits(trials), "candidates measured");
  }

  document.querySelector("h1").textContent = report.title;
  byId("about").textContent = `${roof.device}, ${roof.threads} thread${roof.threads === 1 ? "" : "s"} \u2014 ${report.command}`;
  tiles();
  tables();
  graph();
  roofline();
  times();
  curves(false);
  fromAddress();
  document.body.dataset.ready = "yes";
})();
