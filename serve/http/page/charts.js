// Live charts of what /metrics says, one point every two seconds.
import {metrics} from "/page/server.js";

const points = 60, pause = 2000;
const rise = (now, before, name) => (now[name] ?? 0) - (before[name] ?? 0);
const mean = (now, before, name) => {
  const count = rise(now, before, `${name}_count`);
  return count > 0 ? rise(now, before, `${name}_sum`) / count : 0;
};
const charts = [
  ["Tokens per second", (now, before, seconds) => rise(now, before, "vllm:generation_tokens_total") / seconds, 0],
  ["Time to first token, ms", (now, before) => 1000 * mean(now, before, "vllm:time_to_first_token_seconds"), 0],
  ["Between tokens, ms", (now, before) => 1000 * mean(now, before, "vllm:inter_token_latency_seconds"), 1],
  ["Running", now => now["vllm:num_requests_running"] ?? 0, 0],
  ["Waiting", now => now["vllm:num_requests_waiting"] ?? 0, 0],
  ["KV cache in use, %", now => 100 * (now["vllm:kv_cache_usage_perc"] ?? 0), 1],
];

function figure(title) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${points - 1} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  const line = svg.appendChild(document.createElementNS(svg.namespaceURI, "polyline"));
  const value = document.createElement("b"), caption = document.createElement("figcaption");
  caption.append(title, value);
  const element = document.createElement("figure");
  element.append(caption, svg);
  return {element, line, value, values: []};
}

// Draws into the element as long as it is shown.
export function startCharts(element) {
  const figures = charts.map(([title]) => figure(title));
  element.append(...figures.map(f => f.element));
  let before, at;
  const draw = async () => {
    if (element.hidden || document.hidden) {
      before = undefined;
      return;
    }
    let now;
    try {
      now = await metrics();
    } catch {
      return;  // the status line says that the server is away
    }
    const time = performance.now();
    if (before) charts.forEach(([, read, digits], i) => {
      const {line, value, values} = figures[i];
      values.push(read(now, before, (time - at) / 1000));
      if (values.length > points) values.shift();
      const most = Math.max(...values, 1e-9);
      line.setAttribute("points", values.map((v, x) => `${points - values.length + x},${98 - 96 * v / most}`).join(" "));
      value.textContent = values.at(-1).toFixed(digits);
    });
    [before, at] = [now, time];
  };
  setInterval(draw, pause);
  return draw;
}
