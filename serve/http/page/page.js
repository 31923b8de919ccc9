// The page: the list of conversations, one or two lanes, the composer.
import {startCharts} from "/page/charts.js";
import * as store from "/page/conversations.js";
import {Lane} from "/page/lane.js";
import {key, models as fetchModels} from "/page/server.js";

const byId = id => document.getElementById(id);
const state = {conversations: store.load(), current: null, lanes: [], models: [], stopping: null};

function keep() {
  store.save(state.conversations);
}

function say(text, error = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", error);
}

function open(conversation) {
  state.stopping?.abort();
  state.current = conversation;
  state.lanes = conversation.lanes.map(data => new Lane(data, state.models, keep));
  byId("lanes").replaceChildren(...state.lanes.map(lane => lane.root));
  byId("compare").setAttribute("aria-pressed", conversation.lanes.length > 1);
  byId("list").classList.remove("open");
  list();
  for (const lane of state.lanes) lane.list.scrollTop = lane.list.scrollHeight;
  byId("prompt").focus();
}

function list() {
  byId("conversations").replaceChildren(...state.conversations.map(conversation => {
    const item = document.createElement("li"), title = document.createElement("button"),
          remove = document.createElement("button");
    title.className = "title";
    title.textContent = conversation.title;
    title.setAttribute("aria-current", conversation === state.current);
    title.onclick = () => open(conversation);
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Delete ${conversation.title}`);
    remove.onclick = () => {
      state.conversations = state.conversations.filter(c => c !== conversation);
      keep();
      if (conversation === state.current) begin();
      else list();
    };
    item.append(title, remove);
    return item;
  }));
}

function begin() {
  const [newest] = state.conversations;
  if (newest?.lanes.every(lane => lane.messages.length === 0)) return open(newest);
  const conversation = store.create(state.current?.lanes[0].settings);
  state.conversations.unshift(conversation);
  open(conversation);
}

async function send() {
  const prompt = byId("prompt").value;
  if (!prompt.trim() || state.stopping) return;
  const conversation = state.current;
  if (conversation.lanes[0].messages.length === 0) conversation.title = prompt.slice(0, 60);
  byId("prompt").value = "";
  state.stopping = new AbortController();
  busy(true);
  list();
  await Promise.all(state.lanes.map(lane => lane.answer(prompt, state.stopping.signal)));
  state.stopping = null;
  busy(false);
  keep();
}

function busy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
  byId("compare").disabled = is;
}

function compare() {
  const {lanes} = state.current;
  if (lanes.length > 1) lanes.pop();
  else lanes.push(structuredClone(lanes[0]));
  open(state.current);
  keep();
}

async function connect() {
  try {
    state.models = await fetchModels();
    say(state.models[0].id);
    if (state.current) open(state.current);
    else begin();
  } catch (error) {
    say(error.message, true);
    if (!state.current) begin();
  }
}

byId("composer").onsubmit = event => {
  event.preventDefault();
  send();
};
byId("prompt").onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
};
document.addEventListener("keydown", event => {
  if (event.key === "Escape") state.stopping?.abort();
  if (event.altKey && event.code === "KeyN") begin();
});
byId("stop").onclick = () => state.stopping?.abort();
byId("new").onclick = begin;
byId("compare").onclick = compare;
byId("show-list").onclick = () => byId("list").classList.toggle("open");
byId("key").value = key.get();
byId("key").onchange = event => {
  key.set(event.target.value);
  connect();
};

const draw = startCharts(byId("charts"));
byId("show-charts").onclick = event => {
  const shown = byId("charts").hidden;
  byId("charts").hidden = !shown;
  event.target.setAttribute("aria-pressed", shown);
  draw();
};

// What a token's alternatives were, beside the pointer.
document.addEventListener("pointerover", event => {
  const text = event.target.dataset?.tip, tip = byId("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const {left, bottom} = event.target.getBoundingClientRect();
  tip.style.left = `${Math.max(0, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${bottom + tip.offsetHeight + 8 < innerHeight ? bottom + 4 : Math.max(0, bottom - tip.offsetHeight - 32)}px`;
});

connect();
