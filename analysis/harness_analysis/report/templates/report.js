// Draws the figures as the reader comes near them: colours from the page's theme, choices and
// shares from its controls.
(function () {
  "use strict";
  const root = document.documentElement;
  const figures = Array.from(document.querySelectorAll("[data-figure]"));
  const parsed = new Map();
  const drawn = new Set();
  const touch = matchMedia("(pointer: coarse)").matches;

  function dataOf(figure) {
    if (!parsed.has(figure)) {
      parsed.set(figure, JSON.parse(figure.querySelector("script").textContent));
    }
    return parsed.get(figure);
  }

  // Replaces strings `var(--name)` by the theme's values; long lists of numbers are left alone.
  function themed(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) {
      const plain = value.length > 8 && typeof value[0] !== "object";
      return plain ? value : value.map((item) => themed(item, style));
    }
    if (value !== null && typeof value === "object") {
      const copy = {};
      for (const key of Object.keys(value)) copy[key] = themed(value[key], style);
      return copy;
    }
    return value;
  }

  function shares(values) {
    const total = values[0].map((_, k) => values.reduce((sum, row) => sum + (row[k] || 0), 0));
    return values.map((row) => row.map((v, k) => (v === null || !total[k] ? null : (100 * v) / total[k])));
  }

  function tracesOf(figure, data, style) {
    const traces = data.traces.map((trace) => themed({ ...data.common, ...trace }, style));
    const select = figure.querySelector("select");
    const changes = data.choices[select ? select.selectedIndex : 0] || [];
    changes.forEach((fields, k) => Object.assign(traces[k], fields));
    traces.filter((trace) => trace.segments).forEach(drawSegments);
    if (asShares(figure)) {
      const along = traces[0].orientation === "h" ? "x" : "y";
      shares(traces.map((trace) => trace[along])).forEach((values, k) => {
        traces[k][along] = values;
        traces[k].hovertemplate = traces[k].hovertemplate.replace(/%\{([xy]):.*?\} \w+/, "%{$1:.1f} %");
      });
    }
    return traces;
  }

  // Intervals as one line with gaps: thousands of them cost one element of the page.
  function drawSegments(trace) {
    const { row, start, length, name, names } = trace.segments;
    const size = 3 * row.length;
    const x = new Array(size).fill(null), y = new Array(size).fill(null), text = new Array(size).fill("");
    row.forEach((place, k) => {
      x[3 * k] = start[k];
      x[3 * k + 1] = start[k] + length[k];
      y[3 * k] = y[3 * k + 1] = place;
      text[3 * k] = text[3 * k + 1] = names[name[k]];
    });
    Object.assign(trace, { x, y, text, connectgaps: false });
    delete trace.segments;
  }

  function asShares(figure) {
    const chosen = figure.querySelector("input[value=share]");
    return chosen !== null && chosen.checked;
  }

  function axis(own, style) {
    const line = style.getPropertyValue("--line").trim();
    const muted = style.getPropertyValue("--muted").trim();
    const base = {
      gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true,
      tickfont: { color: muted }, tickformat: own.type === "category" ? undefined : ",~r",
    };
    const title = own.title ? { title: { ...own.title, font: { color: muted, size: 12 }, standoff: 8 } } : {};
    return { ...base, ...own, ...title };
  }

  function layoutOf(figure, data, style) {
    const own = themed(data.layout, style);
    const text = style.getPropertyValue("--text").trim();
    const card = style.getPropertyValue("--card").trim();
    const muted = style.getPropertyValue("--muted").trim();
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: text },
      margin: { l: 8, r: 12, t: 8, b: 8 }, height: Number(figure.dataset.height),
      dragmode: touch ? false : "zoom", showlegend: false,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { bgcolor: card, bordercolor: style.getPropertyValue("--line").trim(), font: { color: text } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: text },
      ...own, xaxis: axis(own.xaxis, style), yaxis: axis(own.yaxis, style),
    };
    if (asShares(figure)) {
      const along = data.common.orientation === "h" ? "xaxis" : "yaxis";
      layout[along] = { ...layout[along], range: [0, 100] };
      layout[along].title = { ...layout[along].title, text: "% of the window" };
    }
    return layout;
  }

  function draw(figure, width) {
    drawn.add(figure);
    const data = dataOf(figure);
    const style = getComputedStyle(root);
    const layout = layoutOf(figure, data, style);
    if (width) layout.width = width;
    const config = {
      responsive: true, displaylogo: false, displayModeBar: !touch,
      modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    };
    return Plotly.react(figure.querySelector(".plot"), tracesOf(figure, data, style), layout, config);
  }

  // Those that are near, one after the other, so that the page answers while it draws.
  const waiting = [];
  function next() {
    const figure = waiting.shift();
    if (!figure) { performance.mark("ready"); root.dataset.ready = "yes"; return; }
    if (!drawn.has(figure)) draw(figure);
    setTimeout(next, 0);
  }

  function comesNear(entries) {
    const near = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
    near.forEach((figure) => observer.unobserve(figure));
    const idle = root.dataset.ready !== "no";
    root.dataset.ready = "no";
    waiting.push(...near);
    if (idle) setTimeout(next, 0);
  }
  const observer = new IntersectionObserver(comesNear, { rootMargin: "50% 0px" });

  function zoom(figure) {
    if (!drawn.has(figure)) draw(figure);
    const [least, most] = dataOf(figure).layout.xaxis.range;
    const width = (most - least) / 2 ** Number(figure.querySelector(".zoom").value);
    const from = least + (most - least - width) * Number(figure.querySelector(".place").value);
    Plotly.relayout(figure.querySelector(".plot"), { "xaxis.range": [from, from + width] });
  }

  figures.forEach((figure) => {
    figure.querySelectorAll("select, input[type=radio]").forEach((control) => {
      control.addEventListener("change", () => draw(figure));
    });
    figure.querySelectorAll("input[type=range]").forEach((control) => {
      control.addEventListener("input", () => zoom(figure));
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawn.forEach((figure) => draw(figure));
  });
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    figures.forEach((figure) => draw(figure, 640));
  });
  addEventListener("afterprint", () => {
    delete root.dataset.theme;
    figures.forEach((figure) => draw(figure));
  });
  figures.forEach((figure) => {
    figure.querySelector(".plot").style.minHeight = `${figure.dataset.height}px`;
    observer.observe(figure);
  });
  if (!figures.length) next();
})();
