// Conversations, kept in this browser alone. Each has one lane, or two that get the same prompts: a lane is its settings
// and its messages.

const place = "lathe-conversations", most = 100;

export const defaults = {
  model: "", system: "", temperature: 0.7, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, max_tokens: 512, seed: "",
  probabilities: true,
};

export function load() {
  try {
    return JSON.parse(localStorage.getItem(place)) ?? [];
  } catch {
    return [];
  }
}

// The newest first; the oldest give way where the browser's room ends.
export function save(conversations) {
  const kept = conversations.filter(c => c.lanes.some(l => l.messages.length)).slice(0, most);
  while (kept.length) {
    try {
      localStorage.setItem(place, JSON.stringify(kept, (name, value) => name === "pieces" ? undefined : value));
      return;
    } catch {
      kept.pop();
    }
  }
  localStorage.removeItem(place);
}

export function create(settings = defaults) {
  return {id: crypto.getRandomValues(new Uint32Array(2)).join("-"), title: "New conversation",
          lanes: [{settings: {...settings}, messages: []}]};
}

// The body of a request for the lane's next answer.
export function request(lane) {
  const {model, system, seed, probabilities, ...sampling} = lane.settings;
  const messages = lane.messages.map(({role, content}) => ({role, content}));
  if (system) messages.unshift({role: "system", content: system});
  const body = {messages, ...sampling, stream: true, stream_options: {include_usage: true}};
  if (model) body.model = model;
  if (seed !== "") body.seed = Number(seed);
  if (probabilities) Object.assign(body, {logprobs: true, top_logprobs: 5});
  return body;
}
