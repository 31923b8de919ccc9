"""The random models of the golden files, and what transformers answers with them."""

import json
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


def with_random_decays(model):
    """Of gated delta nets, which all begin as ones. And keys like queries: where the two are at right angles by chance, what a first token finds is
    nearly nothing, and its norm makes much of the last digits."""
    config = model.config.get_text_config()
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    for name, p in model.named_parameters():
        if name.endswith("in_proj_qkvz.weight"):
            heads = p.data.view(config.linear_num_key_heads, -1, p.shape[1])
            q, k = heads[:, :config.linear_key_head_dim], heads[:, config.linear_key_head_dim:2 * config.linear_key_head_dim]
            k.copy_(q + 0.5 * k)
        if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
            p.data[keys:2 * keys] = p.data[:keys] + 0.5 * p.data[keys:2 * keys]
        if name.endswith("dt_bias"):
            p.data = 0.5 * torch.randn_like(p)
        if name.endswith("A_log"):
            p.data = torch.randn_like(p)
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
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for i in range(head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * i / head_dim)
        if wavelength < context / high:
            factors.append(1)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(factors, dtype=torch.float32)


def mxfp4_rows(blocks, scales):
    """A block of GGUF's: the scale, then bytes that hold the elements j, in the low bits, and j + 16; in Hugging Face's they hold 2j and 2j + 1."""
    elements = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    first, second = elements.chunk(2, dim=-1)
    return torch.cat((scales.unsqueeze(-1), first | second << 4), dim=-1).flatten(-2).contiguous().numpy()


def add_gpt_oss_experts(writer, name, weight, packed):
    """transformers has gate and up in turn, and matrices the other way round."""
    import gguf
    layer, part = name.split(".")[2], name.split(".")[-1].removesuffix("_bias")
    halves = {"gate": slice(0, None, 2), "up": slice(1, None, 2)} if part == "gate_up_proj" else {"down": slice(None)}
    for linear, rows in halves.items():
        stem = f"blk.{layer}.ffn_{linear}_exps."
        if name.endswith("_bias"):
            writer.add_tensor(stem + "bias", weight[:, rows].contiguous().numpy())
        elif name + "_blocks" in packed:
            writer.add_tensor(stem + "weight", mxfp4_rows(packed[name + "_blocks"][:, rows], packed[name + "_scales"][:, rows]),
                              raw_dtype=gguf.GGMLQuantizationType.MXFP4)
        else:
            writer.add_tensor(stem + "weight", weight.transpose(1, 2)[:, rows].contiguous().numpy())


def value_heads_in_turn(weight, config, first, size, dimension=0):
    """llama.cpp's order of a gated delta net's value heads: the first of each key head, then the second of each."""
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    before, heads = weight.split([first, weight.shape[dimension] - first], dim=dimension)
    shape = heads.shape
    split = shape[:dimension] + (keys, values // keys, size) + shape[dimension + 1:]
    heads = heads.reshape(split).transpose(dimension, dimension + 1).reshape(shape)
    return torch.cat((before, heads), dim=dimension)


def qwen3_5_tensor(name, weight, config):
    """As llama.cpp's converter writes it: norms with the one added but for that of heads, −exp(A_log), the convolution without its middle."""
    keys = 2 * config.linear_num_key_heads * config.linear_key_head_dim
    size = config.linear_value_head_dim
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return name, weight + 1
    part = name.rpartition("linear_attn.")[2]
    if part == "A_log":
        return name, value_heads_in_turn(-torch.exp(weight), config, 0, 1)
    if part == "dt_bias":
        return name.replace("dt_bias", "dt_proj.bias"), value_heads_in_turn(weight, config, 0, 1)
    if part in ("in_proj_a.weight", "in_proj_b.weight"):
        return name, value_heads_in_turn(weight, config, 0, 1)
    if part == "in_proj_z.weight":
        return name, value_heads_in_turn(weight, config, 0, size)
    if part == "in_proj_qkv.weight":
        return name, value_heads_in_turn(weight, config, keys, size)
    if part == "conv1d.weight":
        return name, value_heads_in_turn(weight.squeeze(1), config, keys, size)
    if part == "out_proj.weight":
        return name, value_heads_in_turn(weight, config, 0, size, dimension=1)
    return name, weight


def qwen3_next_tensors(name, weight, config):
    """As llama.cpp's converter writes it: q, k and v of all heads in one tensor and z in another; the rest as Qwen3.5's, with heads where they are."""
    if name.endswith("in_proj_qkvz.weight"):
        values = config.linear_num_value_heads // config.linear_num_key_heads * config.linear_value_head_dim
        heads = weight.view(config.linear_num_key_heads, -1, weight.shape[1])
        q, k, v, z = heads.split([config.linear_key_head_dim, config.linear_key_head_dim, values, values], dim=1)
        qkv = torch.cat([part.flatten(0, 1) for part in (q, k, v)])
        return [(name.replace("in_proj_qkvz", "in_proj_qkv"), qkv), (name.replace("in_proj_qkvz", "in_proj_z"), z.flatten(0, 1))]
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        weight = weight + 1
    if name.endswith("A_log"):
        weight = -torch.exp(weight)
    if name.endswith("conv1d.weight"):
        weight = weight.squeeze(1)
    if name.endswith("shared_expert_gate.weight"):
        weight = weight.squeeze(0)
    return [(name.replace("dt_bias", "dt_proj.bias"), weight)]


def granite_hybrid_tensors(name, weight, config):
    """As llama.cpp's converter writes them: the shared block's gate and up apart, −exp(A_log), one number of each head as a matrix of one column."""
    part = name.rpartition("mamba.")[2]
    block, experts = f"blk.{name.split('.')[2]}." if ".layers." in name else "", "_shexp" if config.num_local_experts else ""
    if name.endswith("shared_mlp.input_linear.weight"):
        return [(f"{block}ffn_{half}{experts}.weight", rows) for half, rows in zip(("gate", "up"), weight.chunk(2))]
    if name.endswith("shared_mlp.output_linear.weight"):
        return [(f"{block}ffn_down{experts}.weight", weight)]
    if part == "A_log":
        return [(block + "ssm_a", -torch.exp(weight)[:, None])]
    if part == "D":
        return [(block + "ssm_d", weight[:, None])]
    if part == "dt_bias":
        return [(block + "ssm_dt.bias", weight)]
    if part == "norm.weight":
        return [(block + "ssm_norm.weight", weight.reshape(config.mamba_n_groups, -1))]
    if part == "conv1d.weight":
        return [(block + "ssm_conv1d.weight", weight.squeeze(1))]
    return []


def write_gguf(folder, model_class, architecture, packed=()):
    """In float32, with the names of the gguf package's own table: as llama.cpp's converter writes it. `packed`: a gpt-oss's MXFP4."""
    import gguf
    model = model_class.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    moe = bool(getattr(config, "num_local_experts", 0) or getattr(config, "num_experts", 0))
    is_lfm2, is_hybrid = config.model_type in ("lfm2", "lfm2_moe"), config.model_type == "granitemoehybrid"
    if is_lfm2 or hasattr(config, "intermediate_size"):
        writer.add_feed_forward_length(model.model.layers[0].feed_forward.w1.out_features if is_lfm2 else config.intermediate_size)
    if moe:
        writer.add_expert_count(getattr(config, "num_local_experts", None) or config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if hasattr(config, "moe_intermediate_size"):
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        if hasattr(config, "shared_expert_intermediate_size"):
            writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
        if is_hybrid:
            writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([config.num_key_value_heads if kind == "full_attention" else 0 for kind in config.layer_types]
                             if is_lfm2 or is_hybrid else config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps if is_lfm2 else config.rms_norm_eps)
    if is_lfm2:
        writer.add_shortconv_l_cache(config.conv_L_cache)
    if config.model_type == "lfm2_moe":
        writer.add_leading_dense_block_count(config.num_dense_layers)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        for name, bias in model.named_buffers():
            if name.endswith(".expert_bias"):
                writer.add_tensor(f"blk.{name.split('.')[2]}.exp_probs_b.bias", bias.numpy())
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_eos_token_id(config.eos_token_id)
    if architecture == "gpt-oss":
        writer.add_expert_feed_forward_length(config.intermediate_size)
    if architecture in ("gemma2", "gemma3", "gpt-oss"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "olmo3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if architecture == "exaone4" and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture.startswith("granite"):
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if is_hybrid:
        writer.add_rope_scaling_finetuned(config.position_embedding_type == "rope")
    if is_hybrid and "linear_attention" in config.layer_types:
        writer.add_ssm_conv_kernel(config.mamba_d_conv)
        writer.add_ssm_state_size(config.mamba_d_state)
        writer.add_ssm_group_count(config.mamba_n_groups)
        writer.add_ssm_inner_size(config.mamba_expand * config.hidden_size)
        writer.add_ssm_time_step_rank(config.mamba_n_heads)
    if architecture == "phi3":
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
        writer.add_sliding_window(config.sliding_window or 0)
    if architecture in ("qwen35", "qwen35moe", "qwen3next"):
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
        writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
        writer.add_ssm_state_size(config.linear_key_head_dim)
        writer.add_ssm_group_count(config.linear_num_key_heads)
        writer.add_ssm_time_step_rank(config.linear_num_value_heads)
        writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
        writer.add_full_attention_interval(4)
        if architecture != "qwen3next":
            writer.add_rope_dimension_sections([11, 11, 10, 0])
    if rope["rope_type"] == "longrope":
        context, original = config.max_position_embeddings, config.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(context / original) / math.log(original)))
        writer.add_tensor("rope_factors_long.weight", torch.tensor(rope["long_factor"], dtype=torch.float32).numpy())
        writer.add_tensor("rope_factors_short.weight", torch.tensor(rope["short_factor"], dtype=torch.float32).numpy())
    if rope["rope_type"] == "yarn":
        if rope.get("beta_fast", 32.0) != 32.0:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if architecture == "mistral3":
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_frequency_factors(config).numpy())
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    for name, parameter in model.named_parameters():  # a tied output embedding is listed once
        weight = parameter.detach()
        if architecture.startswith("gemma") and "norm" in name:
            weight = weight + 1
        if architecture in ("llama", "mistral3", "smollm3", "granite", "granitemoe", "granitehybrid") and (".q_proj." in name or ".k_proj." in name):
            weight = interleaved(weight, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        if architecture == "gpt-oss" and ".experts." in name:
            add_gpt_oss_experts(writer, name, weight, packed)
            continue
        if is_hybrid and (tensors := granite_hybrid_tensors(name, weight, config)):
            for own, values in tensors:
                writer.add_tensor(own, values.contiguous().numpy())
            continue
        if architecture in ("granitemoe", "granitehybrid"):
            name = name.replace(".router.weight", ".router.layer.weight")
        if architecture in ("qwen35", "qwen35moe"):
            name, weight = qwen3_5_tensor(name, weight, config)
        if architecture == "qwen3next" and ".experts." not in name:
            for part, rows in qwen3_next_tensors(name, weight, config):
                writer.add_tensor(names.get_name(part, try_suffixes=(".weight", ".bias")), rows.contiguous().numpy())
            continue
        if name.endswith(".conv.conv.weight"):
            weight = weight.squeeze(1)
        if name.endswith("shared_expert_gate.weight"):
            weight = weight.squeeze(0)
        if name.endswith(".sinks"):
            name += ".weight"
        if name.endswith("experts.gate_up_proj"):  # transformers holds both in one, GGUF apart
            layer = name.split(".")[2]
            gate, up = weight.chunk(2, dim=1)
            writer.add_tensor(f"blk.{layer}.ffn_gate_exps.weight", gate.contiguous().numpy())
            writer.add_tensor(f"blk.{layer}.ffn_up_exps.weight", up.contiguous().numpy())
            continue
        if name.endswith("experts.down_proj"):
            writer.add_tensor(f"blk.{name.split('.')[2]}.ffn_down_exps.weight", weight.contiguous().numpy())
            continue
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def greedy_tokens(model, prompt, count=32):
    """The most likely tokens one after another, and by how much the closest of them led."""
    ids, margin = list(prompt), math.inf
    with torch.no_grad():
        for _ in range(count):
            top = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
    return {"prompt": list(prompt), "tokens": ids[len(prompt):], "least_margin": margin}


USUAL_LINEARS = ("gate_proj", "up_proj", "down_proj")
EXPERT_LINEARS = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": USUAL_LINEARS, "olmoe": USUAL_LINEARS, "gpt_oss": USUAL_LINEARS,
                  "granitemoe": USUAL_LINEARS, "granitemoehybrid": USUAL_LINEARS, "qwen2_moe": USUAL_LINEARS, "qwen3_5_moe_text": USUAL_LINEARS, "qwen3_next": USUAL_LINEARS, "lfm2_moe": ("w1", "w3", "w2")}


def separate_experts(tensors, model_type):
    """transformers holds a layer's experts in two tensors; its files, and Lathe, each of their linears apart."""
    if model_type not in EXPERT_LINEARS:
        return tensors
    gate_name, up_name, down_name = EXPERT_LINEARS[model_type]
    apart = {}
    for name, tensor in tensors.items():
        if model_type == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if model_type.startswith("granitemoe"):
            name = name.replace(".router.weight", ".router.layer.weight")
        block, _, part = name.rpartition(".experts.")
        suffix = ".weight"
        if model_type == "gpt_oss" and block:  # gate and up in turn, and matrices the other way round
            suffix = ".bias" if part.endswith("_bias") else ".weight"
            part = part.removesuffix("_bias")
            tensor = tensor.transpose(1, 2) if suffix == ".weight" else tensor
            if part == "gate_up_proj":
                tensor = torch.cat((tensor[:, ::2], tensor[:, 1::2]), dim=1)
        if part not in ("gate_up_proj", "down_proj"):
            apart[name] = tensor
            continue
        for i, expert in enumerate(tensor):
            halves = [(gate_name, expert.chunk(2)[0]), (up_name, expert.chunk(2)[1])] if part == "gate_up_proj" else [(down_name, expert)]
            for linear, values in halves:
                apart[f"{block}.experts.{i}.{linear}{suffix}"] = values.contiguous()
    return apart


def load_eager(model_class, folder):
    """With the plain bodies: the fused ones of attention cap nothing, those of experts know no float64."""
    experts = {"experts_implementation": "eager"} if json.loads((folder / "config.json").read_text())["model_type"] in EXPERT_LINEARS else {}
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **experts)


def write_expected(folder, model_class, all_ids, greedy=None):
    """Logits, loss and the gradient of every parameter of the model in the folder, computed in float64; with `greedy` what follows that
    prompt."""
    loss, count, logits, gradients = run(load_eager(model_class, folder), torch.float32, all_ids)
    loss64, _, logits64, gradients64 = run(load_eager(model_class, folder), torch.float64, all_ids)
    worst = max(float((gradients[n] - gradients64[n]).norm() / gradients64[n].norm()) for n in gradients)
    worst_logit = max(float((logits[n] - logits64[n]).abs().max()) for n in logits)
    gradients64 = separate_experts(gradients64, json.loads((folder / "config.json").read_text())["model_type"])
    save_file({**logits64, **{f"grad.{n}": g for n, g in gradients64.items()}}, folder / "expected.safetensors")
    oracle.write_json(folder / "expected.json", {
        "input_ids": all_ids, "labels": [labels_of(ids, i) for i, ids in enumerate(all_ids)], "loss": loss64, "num_labels": count,
        "float32": {"loss": loss, "max_logit_difference": worst_logit, "max_relative_gradient_difference": worst},
        **({"greedy": greedy_tokens(load_eager(model_class, folder).double().eval(), greedy)} if greedy else {})})
    (folder / "generation_config.json").unlink(missing_ok=True)
