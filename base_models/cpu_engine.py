"""The networks of a pipeline as a processor computes them fast: equal results up to rounding.

- ``MergedTransformer``: the transformer with LoRA merged, in bf16 where the processor has instructions for
  it, with ``base_models.attention`` in place of torch's kernel;
- ``quicken_decoder``: a VAE's decoder without the products that its upsampling repeats.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch.nn import functional as F

from base_models.attention import ShortAttention, ShortCosmosAttention


def has_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are faster there than in float32.

    Without such instructions torch converts every product: where AVX-512 lacks them an update in bf16 takes
    twice as long as in float32, with AVX2 alone eight times. Processors other than x86 are taken to have
    none, for want of a measurement.
    """
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class MergedTransformer:
    """A transformer that runs with some of its weights replaced by others, which may carry gradients."""

    def __init__(self, plain: torch.nn.Module, weights: dict[str, torch.Tensor]):
        self.plain, self.weights = plain, weights
        self.config = plain.config

    def __call__(self, **arguments):
        # No weight of these transformers has two names, for which every call would look.
        return torch.func.functional_call(self.plain, self.weights, (), arguments, tie_weights=False)


def merged_weights(transformer: torch.nn.Module, adapter: str | None, dtype: torch.dtype) -> dict:
    """W + scaling * B A by name for every LoRA layer of the adapter, with their gradients; none for None."""
    return {
        f"{name}.weight": (layer.base_layer.weight + layer.get_delta_weight(adapter)).to(dtype)
        for name, layer in transformer.named_modules()
        if adapter is not None and adapter in getattr(layer, "lora_A", ())
    }


def plain_copy(transformer: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """The transformer without LoRA layers, made fast where ``device`` is a processor."""
    from diffusers.models.activations import GELU
    from diffusers.models.attention import AttentionMixin, JointTransformerBlock

    plain = type(transformer).from_config(transformer.config)
    for name, module in transformer.named_children():
        if isinstance(module, torch.nn.Identity):  # a part that the adapter has taken out
            setattr(plain, name, module)
    weights = {k.replace(".base_layer.", "."): v for k, v in transformer.state_dict().items()}
    plain.load_state_dict({k: v for k, v in weights.items() if "lora_" not in k})
    for module in plain.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(_contiguous)
        elif isinstance(module, GELU) and dtype == torch.bfloat16:
            # The approximation by tanh takes six times as long. In bf16, 7 % of values then round to a
            # neighbour, which adds 1 % to the error that rounding makes anyway (normal inputs, rms).
            module.approximate = "none"
        elif (
            device.type == "cpu"
            and isinstance(module, JointTransformerBlock)
            and not module.use_dual_attention
        ):
            module.forward = MethodType(joint_block, module)
    if device.type == "cpu" and isinstance(transformer, AttentionMixin):
        plain.set_attn_processor(ShortAttention())
    elif device.type == "cpu":
        shorten_attention(plain)
    return plain.requires_grad_(False).eval().to(device, dtype)


def shorten_attention(transformer: torch.nn.Module) -> None:
    """Give a Cosmos transformer's layers ``ShortCosmosAttention``; others keep theirs."""
    from diffusers.models.transformers.transformer_cosmos import CosmosAttnProcessor2_0

    for module in transformer.modules():
        if isinstance(getattr(module, "processor", None), CosmosAttnProcessor2_0):
            module.set_processor(ShortCosmosAttention())


def _contiguous(_, arguments: tuple) -> tuple:
    """For a slice ``linear`` copies its weight once per row of the batch."""
    return (arguments[0].contiguous(), *arguments[1:])


def joint_block(block, hidden_states, encoder_hidden_states, temb, joint_attention_kwargs=None):
    """``JointTransformerBlock.forward`` in fewer passes over the activations, without dual attention.

    Args:
        hidden_states, encoder_hidden_states: (B, L, D) of the image and of the text.
        temb: (B, D), the embedding of noise level and prompt.

    Returns:
        The text (None after the last block) and the image.
    """
    x, text, condition = hidden_states, encoder_hidden_states, F.silu(temb)[:, None]

    def modulated(x, shift, scale):
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)

    shift, scale, gate, *mlp = block.norm1.linear(condition).chunk(6, dim=-1)
    normed = modulated(x, shift, scale)
    if block.context_pre_only:
        scale, shift = block.norm1_context.linear(condition).chunk(2, dim=-1)
    else:
        shift, scale, text_gate, *text_mlp = block.norm1_context.linear(condition).chunk(6, dim=-1)
    attended, of_text = block.attn.processor(block.attn, normed, modulated(text, shift, scale))

    def residuals(x, gate, attended, feed_forward, shift, scale, mlp_gate):
        x = torch.addcmul(x, gate, attended)
        return torch.addcmul(x, mlp_gate, feed_forward(modulated(x, shift, scale)))

    x = residuals(x, gate, attended, block.ff, *mlp)
    if block.context_pre_only:
        return None, x
    return residuals(text, text_gate, of_text, block.ff_context, *text_mlp), x


class FoldedUpsampling(torch.nn.Module):
    """Nearest-neighbour upsampling by 2 and a 3 x 3 convolution, as one transposed convolution.

    A pixel's four copies meet weights that can be added up beforehand: 4 products remain of 9.
    """

    def __init__(self, convolution: torch.nn.Conv2d):
        super().__init__()

        def folded(weight, axis):  # out[2i] takes a x[i-1] and (b+c) x[i], out[2i+1] (a+b) x[i] and c x[i+1]
            a, b, c = weight.unbind(axis)
            return torch.stack([c, b + c, a + b, a], axis)

        weight = folded(folded(convolution.weight.detach(), 2), 3).transpose(0, 1)
        self.weight = torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False)
        self.bias = convolution.bias

    def forward(self, hidden_states: torch.Tensor, output_size=None) -> torch.Tensor:
        return F.conv_transpose2d(hidden_states, self.weight, self.bias, stride=2, padding=1)


def residual_block(block, x, temb=None):
    """``ResnetBlock2D.forward`` of a decoder, which has no time embedding and divides the sum by 1."""
    hidden = block.conv1(block.nonlinearity(block.norm1(x)))
    hidden = block.conv2(block.nonlinearity(block.norm2(hidden)))
    return hidden + (x if block.conv_shortcut is None else block.conv_shortcut(x))


def quicken_decoder(decoder: torch.nn.Module) -> None:
    """Give the decoder of an ``AutoencoderKL`` both of the above."""
    from diffusers.models.resnet import ResnetBlock2D

    for module in decoder.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = MethodType(residual_block, module)
    for block in decoder.up_blocks:
        for index, layer in enumerate(block.upsamplers or ()):
            block.upsamplers[index] = FoldedUpsampling(layer.conv)


__all__ = [
    "FoldedUpsampling",
    "MergedTransformer",
    "has_bf16",
    "merged_weights",
    "plain_copy",
    "quicken_decoder",
    "shorten_attention",
]
