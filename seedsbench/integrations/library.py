"""What is used of the diffusers library, or one line that says how to get it."""

try:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
    from diffusers.utils.outputs import BaseOutput
    from diffusers.utils.torch_utils import randn_tensor
except ImportError as error:
    raise ImportError(
        f"seedsbench.integrations needs the diffusers library ({error}): pip install 'seedsbench[diffusers]'"
    ) from error

__all__ = [
    "BaseOutput",
    "ConfigMixin",
    "DiffusionPipeline",
    "ImagePipelineOutput",
    "KarrasDiffusionSchedulers",
    "SchedulerMixin",
    "randn_tensor",
    "register_to_config",
]
