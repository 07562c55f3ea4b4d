"""The precision of a forward pass: bf16 or fp32, and what the device does natively."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A forward pass on ``device`` in ``dtype``, wherever autocast supports it; weights and gradients are fp32."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def named(cls, name: str, device: torch.device) -> "Precision":
        """``bf16`` or ``fp32``."""
        return cls(device, torch.bfloat16 if name == "bf16" else torch.float32)

    def autocast(self) -> torch.autocast | nullcontext[None]:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)


def native_precision(device: torch.device) -> str:
    """``bf16`` where ``device`` computes in it natively, else ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")
    else:
        # torch before 2.10
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if native else "fp32"


def set_up_cudnn() -> None:
    """Let cuDNN choose its algorithms, which pays because shapes hardly change, and keep fp32 from becoming TF32."""
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
