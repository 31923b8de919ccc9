// One lane on the page: its settings, its messages, and the answer that is coming in.
import {request} from "/page/conversations.js";
import {chat} from "/page/server.js";

const element = (tag, className, text = "") => {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
};
const percent = logprob => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const visible = text => text.replace(/\n/g, "⏎").replace(/ /g, "␣");

export class Lane {
  constructor(data, models, changed) {
    this.data = data;
    this.changed = changed;
    this.root = document.getElementById("lane").content.cloneNode(true).firstElementChild;
    this.list = this.root.querySelector(".messages");
    this.bind(models);
    for (const message of data.messages) this.show(message);
  }

  bind(models) {
    const {settings} = this.data;
    const picker = this.root.querySelector("[name=model]");
    for (const {id, parent} of models) picker.add(new Option(parent ? `${id} (adapter)` : id, id));
    if (!models.some(m => m.id === settings.model)) settings.model = models[0]?.id ?? "";
    picker.addEventListener("click", event => event.stopPropagation());
    for (const field of this.root.querySelectorAll("[name]")) {
      const {name} = field;
      if (field.type === "checkbox") field.checked = settings[name];
      else field.value = settings[name];
      field.addEventListener("change", () => {
        if (!field.reportValidity()) return;
        settings[name] = field.type === "checkbox" ? field.checked
          : field.type === "number" && field.value !== "" ? Number(field.value) : field.value;
        this.summarise();
        this.changed();
      });
    }
    this.summarise();
  }

  summarise() {
    const {temperature, top_p, max_tokens} = this.data.settings;
    this.root.querySelector(".summary").textContent = `temperature ${temperature}, top p ${top_p}, ${max_tokens} tokens`;
  }

  show({role, content, pieces}) {
    const message = element("div", `message ${role}`, pieces ? "" : content);
    for (const piece of pieces ?? []) message.append(this.token(piece));
    this.list.append(message);
    this.list.scrollTop = this.list.scrollHeight;
    return message;
  }

  // The less likely a token was, the stronger its ground.
  token({text, tokens, thought}) {
    const span = element("span", thought ? "token thought" : "token", text);
    if (!tokens.length) return span;
    span.style.backgroundColor = `rgb(230 120 20 / ${0.45 * (1 - Math.exp(tokens.at(-1).logprob))})`;
    span.dataset.tip = tokens.map(t => `${visible(t.token)}  ${percent(t.logprob)}\n` +
      t.top_logprobs.map(o => `   ${visible(o.token)}  ${percent(o.logprob)}`).join("\n")).join("\n");
    return span;
  }

  async answer(prompt, signal) {
    const {messages} = this.data;
    messages.push({role: "user", content: prompt});
    this.show(messages.at(-1));
    const body = request(this.data);
    const answer = {role: "assistant", content: "", pieces: []};
    messages.push(answer);
    const shown = this.show(answer), began = performance.now();
    let note = "", failed = false, first, usage, hidden = [], drawn = 0, frame = 0;
    // Once for each frame: tokens come faster than a page can be laid out.
    const draw = () => {
      frame = 0;
      const follow = this.list.scrollTop + this.list.clientHeight > this.list.scrollHeight - 40;
      shown.append(...answer.pieces.slice(drawn).map(piece => this.token(piece)));
      drawn = answer.pieces.length;
      if (follow) this.list.scrollTop = this.list.scrollHeight;
    };
    try {
      for await (const chunk of chat(body, signal)) {
        usage = chunk.usage ?? usage;
        const choice = chunk.choices[0];
        if (!choice) continue;
        hidden.push(...(choice.logprobs?.content ?? []));
        if (choice.finish_reason === "length") note = "ended at max tokens";
        const {content, reasoning_content: thought} = choice.delta, text = content || thought;
        if (!text) continue;
        first ??= performance.now();
        // An empty line between what it thinks and what it says.
        if (content && !answer.content && answer.pieces.length) answer.pieces.push({text: "\n\n", tokens: []});
        if (content) answer.content += content;
        answer.pieces.push({text, tokens: hidden, thought: !content});
        hidden = [];
        frame ||= requestAnimationFrame(draw);
      }
    } catch (error) {
      failed = error.name !== "AbortError";
      note = failed ? error.message : "stopped";
    }
    cancelAnimationFrame(frame);
    draw();
    if (usage && first) {
      const seconds = (performance.now() - first) / 1000;
      note += `${note ? ", " : ""}${usage.completion_tokens} tokens, first after ${Math.round(first - began)} ms, ` +
        `${(usage.completion_tokens / Math.max(seconds, 1e-3)).toFixed(1)} tokens/s`;
    }
    if (note) shown.append(element("span", failed ? "note error" : "note", note));
    if (!answer.pieces.length) messages.splice(-2);  // nothing came: the prompt may be sent again
    this.list.scrollTop = this.list.scrollHeight;
  }
}
