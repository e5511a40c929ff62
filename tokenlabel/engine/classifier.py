"""The model MMEngine trains: a timm classifier, its targets and its loss."""

import difflib
from dataclasses import replace
from functools import partial
from pathlib import Path

import timm
import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import MODELS, TASK_UTILS
from mmengine.runner import Runner
from torch import Tensor

from tokenlabel.argument_checks import checked
from tokenlabel.checkpoints.reading import read_checkpoint
from tokenlabel.checkpoints.weights import load_checkpoint
from tokenlabel.data.sample import Batch
from tokenlabel.engine.compilation import compiled_for_training
from tokenlabel.engine.preprocessor import ImagePreprocessor
from tokenlabel.engine.token_targets import AnnotatorTokenLabels
from tokenlabel.errors import UserError
from tokenlabel.models.token_label_model import TokenLabelModel, has_token_logits
from tokenlabel.models.token_logits import TokenLogits
from tokenlabel.objective.loss import TokenLabelLoss, token_accuracy
from tokenlabel.objective.targets import TokenTargets

RGB = 3  # channels of every image


@MODELS.register_module()
class TokenLabelClassifier(BaseModel):
    """A classifier trained on token labels, or on image labels.

    LV-ViT has a token head. Any other network gets one (`TokenLabelModel`) if the targets train tokens or MixToken is
    on; otherwise it is timm's plain classifier.

    Args:
        network: arguments of `timm.create_model`; `model_name` is the architecture.
        targets: the training targets, a class of `tokenlabel.engine.token_targets`.
        loss: arguments of `TokenLabelLoss`. If the targets do not train tokens, the loss has no token term, the token
            head is frozen and the evaluation scores come from the class token alone.
        data_preprocessor: normalisation, random erasing, CutMix and Mixup.
        compile: compile the network in training; see `compiled_for_training`. Targets and loss are not compiled,
            since their sizes depend on the data.
        grad_checkpointing: recompute activations in the backward pass instead of storing them: less memory, more time.
        channels_last: keep images and convolution weights in the channels-last memory format, which is faster on
            GPUs; results change only by rounding.

    Attributes:
        class_names: names of the classes in order, from the training images or a checkpoint; None before.
        grid: rows and columns of tokens in the last training batch; None before, and if the network has no tokens.

    Raises:
        UserError: an unknown architecture, `in_chans` other than 3, token targets for a network that cannot have a
            token head, an annotator whose mean or std differs from that of the images, CutMix or Mixup together with
            MixToken or `ground_truth`, a network without gradient checkpointing, or an unknown compile backend.
    """

    @checked
    def __init__(
        self,
        network: dict,
        targets: dict,
        loss: dict | None = None,
        data_preprocessor: dict | None = None,
        compile: bool | str = False,
        grad_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'ImagePreprocessor'})
        if (channels := network.get('in_chans', RGB)) != RGB:
            raise UserError(f'model.network.in_chans is {channels}, but every image is read as RGB: leave it out.')
        self.targets = TASK_UTILS.build(targets)
        self.model = create_network(**network, token_head=self.targets.trains_tokens)
        self.architecture = network['model_name'].split('.')[0]  # without the tag of pretrained weights
        self.class_names: list[str] | None = None
        self.grid: tuple[int, int] | None = None
        if isinstance(self.targets, AnnotatorTokenLabels):
            self._check_normalisation(self.targets)
        loss = {'in_place': True} | (loss or {})  # nothing here reads logits after the backward pass
        if not self.targets.trains_tokens:
            loss['dense_weight'] = 0.0
            if hasattr(self.model, 'token_score_weight'):
                self.model.aux_head.requires_grad_(False)
                self.model.token_score_weight = 0.0
        self.loss_function = TokenLabelLoss(**loss)
        self._check_mixing(self.loss_function.ground_truth)
        if isinstance(self.data_preprocessor, ImagePreprocessor):
            ids = ['classes'] * self.targets.needs_label_maps
            ids += ['label'] * (self.targets.needs_image_labels or self.loss_function.ground_truth)
            self.data_preprocessor.class_counts = dict.fromkeys(ids, self.num_classes)
        if grad_checkpointing:
            self._checkpoint_gradients()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self._compiled = compiled_for_training(self.model, compile)

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def description(self) -> dict:
        """Metadata that a checkpoint stores beside the weights."""
        return {
            'architecture': self.architecture,
            'num_classes': self.num_classes,
            'class_names': self.class_names,
            'token_score_weight': getattr(self.model, 'token_score_weight', 0.0),
        }

    def load_trained(self, path: str | Path) -> None:
        """Loads class names and weights for evaluation: the EMA weights if the checkpoint has them.

        Raises:
            UserError: as `load_checkpoint`.
        """
        load_checkpoint(self.model, path, ema=True)
        self.class_names = read_checkpoint(path).get('tokenlabel', {}).get('class_names')

    def _check_normalisation(self, targets: AnnotatorTokenLabels) -> None:
        """The annotator undoes the normalisation of the images, so both need the same mean and std."""
        for name in ('mean', 'std'):
            image_values = getattr(self.data_preprocessor, name).flatten() / 255
            if not torch.allclose(image_values, torch.tensor(getattr(targets, name)), atol=1e-4):
                raise UserError(
                    f'model.targets.{name} is {getattr(targets, name)} but model.data_preprocessor.{name} is '
                    f'{tuple(round(float(value), 4) for value in image_values)}: set both to the same values.'
                )

    def _checkpoint_gradients(self) -> None:
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError) as error:
            raise UserError(
                f'{self.architecture} has no gradient checkpointing in timm: set model.grad_checkpointing=False.'
            ) from error

    def init_weights(self) -> None:
        """Does nothing: MMEngine calls it before training, and the default would overwrite timm's initialisation."""

    def forward(self, batch: Batch, mode: str = 'tensor') -> dict | list | Tensor | TokenLogits:
        """MMEngine's three modes: 'loss' (losses by name), 'predict' (class scores beside labels), 'tensor' (raw).

        'loss' also returns `token_accuracy`, the share of tokens in [0, 1] whose best class is that of the target.
        """
        images = batch['image'].contiguous(memory_format=self.memory_format)
        network = self._compiled if self._compiled and mode == 'loss' else self.model
        output = network(images)
        if mode == 'loss':
            return self._losses(output, batch)
        if mode == 'predict':
            return [{'scores': output.float(), 'labels': batch['label']}]
        return output

    def _losses(self, output: TokenLogits | Tensor, batch: Batch) -> dict[str, Tensor]:
        logits = output if isinstance(output, TokenLogits) else TokenLogits(output, None, None, None)
        with torch.autocast(batch['image'].device.type, enabled=False), torch.no_grad():
            targets = self.targets_of(batch, logits.grid)
        losses = self.loss_function.parts(logits, targets, labels=batch['label'])
        if 'loss_tokens' in losses:
            losses['token_accuracy'] = token_accuracy(logits.tokens, targets.tokens)
        self.grid = logits.grid
        return losses

    def targets_of(self, batch: Batch, grid: tuple[int, int] | None) -> TokenTargets:
        """Targets of a batch. If the images were mixed, so are the targets: each token's in proportion to its area.

        `AnnotatorTokenLabels` labels the mixed images themselves, so its targets are not mixed again.
        """
        targets = self.targets(batch, grid, self.num_classes)
        mix = batch.get('mix')
        if mix is None or isinstance(self.targets, AnnotatorTokenLabels):
            return targets
        cls, tokens, device = targets.cls, targets.tokens, batch['image'].device
        return replace(
            targets,
            cls=cls.mixed(mix.kept().to(device, non_blocking=True)),
            tokens=None if tokens is None else tokens.mixed(mix.kept_by_tokens(grid).to(device, non_blocking=True)),
        )

    def _check_mixing(self, ground_truth: bool) -> None:
        if not getattr(self.data_preprocessor, 'mixes', False):
            return
        if getattr(self.model, 'mix_token', False):
            raise UserError(
                'MixToken and CutMix or Mixup would mix a batch twice: set model.network.mix_token=False, or cutmix=0 '
                'and mixup=0 in model.data_preprocessor.'
            )
        if ground_truth:
            raise UserError(
                'model.loss.ground_truth does not support mixed images: set it to False, or set cutmix=0 and '
                'mixup=0 in model.data_preprocessor.'
            )


def classifier_of(runner: Runner) -> TokenLabelClassifier:
    """The classifier that a runner trains, without the DDP wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def create_network(model_name: str, token_head: bool = False, **arguments) -> torch.nn.Module:
    """`timm.create_model`, or `TokenLabelModel` for networks without a token head, with one-sentence errors.

    Args:
        model_name: timm's name of the architecture.
        token_head: whether tokens are trained. If False, only `mix_token=True` builds a `TokenLabelModel`.
        **arguments: arguments of the architecture.

    Raises:
        UserError: an unknown architecture, one that cannot have a token head, an argument that it does not take, or
            pretrained weights that cannot be loaded.
    """
    architecture = model_name.split('.')[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f'did you mean {", ".join(close)}?' if close else 'see timm.list_models().'
        raise UserError(f'timm knows no model `{model_name}`: {hint}')
    make = timm.create_model
    if not has_token_logits(architecture):
        mix_token = arguments.pop('mix_token', False)
        if token_head or mix_token:
            make = partial(TokenLabelModel, mix_token=mix_token)
    try:
        return make(model_name, **arguments)
    except TypeError as error:
        raise UserError(f'Network {model_name} does not take these arguments: {error}.') from error
    except UserError:
        raise
    except Exception as error:
        # Hub clients raise many types of errors when a download fails, and timm's networks do not validate their
        # arguments. Both are bad input here, not a bug.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if not arguments.get('pretrained'):
            raise UserError(f'Network {model_name} cannot be built with these arguments: {reason}.') from error
        raise UserError(
            f'No pretrained weights for {model_name} ({reason}): give the path of a file with '
            'model.network.pretrained_cfg_overlay.file, or set model.network.pretrained=False.'
        ) from error
