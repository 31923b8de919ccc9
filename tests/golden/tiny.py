"""The random models of the golden files, and what transformers answers with them."""

import math

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import oracle

FOLDER = oracle.HERE / "tiny_llama"


def random_llama(tied, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=160,
                         vocab_size=320, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=tied, rope_theta=10000.0,
                         bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.08)
    return with_random_vectors(LlamaForCausalLM(config).float().eval())


def with_random_vectors(model):
    """Norms that are not all ones and biases that are not all zeros, so that a wrong one shows."""
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data = 1 + 0.2 * torch.randn_like(p)
        elif name.endswith(".bias"):
            p.data = 0.2 * torch.randn_like(p)
    return model


def load(name="untied"):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32).eval()


def sequences(lengths, seed, vocabulary=320):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def labels_of(ids, number):
    """The middle sequence's first 20 tokens are a prompt; a label in the last one is left out."""
    labels = list(ids)
    if number == 1:
        labels[:20] = [-100] * 20
    if number == 2:
        labels[33] = -100
    return labels


def run(model, dtype, all_ids):
    """Each sequence alone (batch 1, no padding); loss = sum over all valid shifted labels of all sequences ÷ their number."""
    model = model.to(dtype)
    total, count, logits = 0, 0, {}
    for number, ids in enumerate(all_ids):
        out = model(input_ids=torch.tensor([ids])).logits[0]
        labels = torch.tensor(labels_of(ids, number))[1:]
        total = total + torch.nn.functional.cross_entropy(out[:-1], labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
        logits[f"logits.{number}"] = out.detach().float().contiguous()
    loss = total / count
    loss.backward()
    return loss.item(), count, logits, {n: p.grad.float().contiguous() for n, p in model.named_parameters() if p.requires_grad}


def interleaved(weight, heads):
    """The rows of q or k, or their biases, as llama.cpp's converter puts a Llama's: the two halves of each head in turn."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def llama3_frequency_factors(config):
    """What Llama 3.1's scaling divides each frequency by: rope_freqs of llama.cpp's converter."""
    rope = config.rope_parameters
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for i in range(config.head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * i / config.head_dim)
        if wavelength < context / high:
            factors.append(1)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(factors, dtype=torch.float32)


def write_gguf(folder, model_class, architecture):
    """In float32, with the names of the gguf package's own table: as llama.cpp's converter writes it."""
    import gguf
    model = model_class.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_eos_token_id(config.eos_token_id)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_frequency_factors(config).numpy())
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    for name, parameter in model.named_parameters():  # a tied output embedding is listed once
        weight = parameter.detach()
        if architecture == "gemma3" and "norm" in name:
            weight = weight + 1
        if architecture in ("llama", "smollm3") and (".q_proj." in name or ".k_proj." in name):
            weight = interleaved(weight, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_expected(folder, model_class, all_ids):
    """Logits, loss and the gradient of every parameter of the model in the folder, computed in float64."""
    loss, count, logits, gradients = run(model_class.from_pretrained(folder, dtype=torch.float32), torch.float32, all_ids)
    loss64, _, logits64, gradients64 = run(model_class.from_pretrained(folder, dtype=torch.float32), torch.float64, all_ids)
    worst = max(float((gradients[n] - gradients64[n]).norm() / gradients64[n].norm()) for n in gradients)
    worst_logit = max(float((logits[n] - logits64[n]).abs().max()) for n in logits)
    save_file({**logits64, **{f"grad.{n}": g for n, g in gradients64.items()}}, folder / "expected.safetensors")
    oracle.write_json(folder / "expected.json", {
        "input_ids": all_ids, "labels": [labels_of(ids, i) for i, ids in enumerate(all_ids)], "loss": loss64, "num_labels": count,
        "float32": {"loss": loss, "max_logit_difference": worst_logit, "max_relative_gradient_difference": worst}})
    (folder / "generation_config.json").unlink(missing_ok=True)
