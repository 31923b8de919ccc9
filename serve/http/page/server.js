// What the page asks of the server.

export const key = {
  get: () => sessionStorage.getItem("key") ?? "",
  set: value => sessionStorage.setItem("key", value),
};

async function ask(path, options = {}) {
  const headers = {"Content-Type": "application/json"};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const answer = await fetch(path, {...options, headers});
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error.message;
  } catch { /* not JSON: the status says it */ }
  throw new Error(message);
}

export async function models() {
  return (await (await ask("/v1/models")).json()).data;
}

// Yields the chunks of a chat completion. An error in the stream is thrown.
export async function* chat(body, signal) {
  const answer = await ask("/v1/chat/completions", {method: "POST", body: JSON.stringify(body), signal});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;  // a comment that keeps the connection alive
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

// Prometheus's text as {name: sum over its labels}.
export async function metrics() {
  const sums = {};
  for (const line of (await (await ask("/metrics")).text()).split("\n")) {
    const found = /^([^#{\s]+)\{[^}]*\} (\S+)$/.exec(line);
    if (found && !found[1].endsWith("_bucket")) sums[found[1]] = (sums[found[1]] ?? 0) + Number(found[2]);
  }
  return sums;
}
