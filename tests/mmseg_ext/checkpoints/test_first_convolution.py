"""Weights learned on RGB start models of other channels, as timm does it, and the log says so."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.registry import MODELS
from timm.models import adapt_input_conv

import mmseg_ext  # noqa: F401  (registers the names)
from mmseg_ext.checkpoints.first_convolution import with_other_channels
from mmseg_ext.checkpoints.other_classes import load_all_but_other_heads
from tests.mmseg_ext.checkpoints import test_segmentation_weights as lvvit
from tests.mmseg_ext.checkpoints import test_timm_backbone as of_timm
from tests.tiny_segmentors import segmentor
from tokenlabel.errors import UserError

FIVE = dict(type='SegDataPreProcessor', mean=[0.0] * 5, std=[1.0] * 5)


@pytest.fixture
def log(caplog):
    """What goes to MMEngine's current logger."""
    logger = MMLogger.get_instance('first_convolution', log_level='INFO')
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    MMLogger._instance_dict.pop('first_convolution')


def lines(log) -> list[str]:
    return [record.getMessage() for record in log.records if 'adapted from RGB' in record.getMessage()]


@pytest.mark.parametrize('channels', [1, 2, 4, 13])
def test_the_stem_of_a_classifier_fits_another_number_of_channels(channels, log, tmp_path):
    source = lvvit.classifier()
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'c.pth')
    model = lvvit.backbone(in_chans=channels, init_cfg=lvvit.pretrained(tmp_path / 'c.pth'))
    model.init_weights()
    stem = 'patch_embed.conv1.weight'
    kernels = source.state_dict()[stem]
    assert torch.equal(model.state_dict()[stem], adapt_input_conv(channels, kernels))
    lvvit.assert_took(model, source.state_dict() | {stem: model.state_dict()[stem]})
    plural = 's' if channels > 1 else ''
    assert lines(log) == [f'{tmp_path}/c.pth: {stem} is adapted from RGB to {channels} channel{plural}.']


@pytest.mark.parametrize('channels', [1, 6, 12])
def test_equal_channels_give_what_they_gave(channels):
    grey = torch.rand(2, 1, 16, 16)
    rgb = lvvit.backbone(img_size=96).eval()
    model = lvvit.backbone(in_chans=channels).eval()
    model.load_state_dict(with_other_channels(rgb.state_dict(), model.state_dict(), 'here'))
    for one, other in zip(model(grey.expand(-1, channels, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('name', of_timm.FAMILIES)
def test_a_file_in_timm_s_names_fits_another_number_of_channels(name, log, tmp_path):
    source = of_timm.classifier(name)
    model = of_timm.backbone(name, of_timm.saved(source.state_dict(), tmp_path / 'c.pth'), in_chans=13)
    own = model.model.state_dict()
    first = next(key for key, x in source.state_dict().items() if x.ndim == 4 and x.shape[1] == 3)
    torch.testing.assert_close(own[first], adapt_input_conv(13, source.state_dict()[first]))
    assert len(lines(log)) == 1


def test_weights_of_other_channels_than_rgb_are_refused(tmp_path):
    source = lvvit.backbone(in_chans=4)
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'c.pth')
    with pytest.raises(UserError, match=r'patch_embed\.conv1\.weight'):
        lvvit.backbone(in_chans=13, init_cfg=lvvit.pretrained(tmp_path / 'c.pth')).init_weights()


def test_a_segmentation_model_of_rgb_starts_one_of_other_channels(log, tmp_path):
    source = segmentor()
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'c.pth')
    model = segmentor(in_channels=5, data_preprocessor=FIVE)
    load_all_but_other_heads(model, tmp_path / 'c.pth')
    stem = 'backbone.patch_embed.conv1.weight'
    assert torch.equal(model.state_dict()[stem], adapt_input_conv(5, source.state_dict()[stem]))
    assert len(lines(log)) == 1


def test_timm_s_own_weights_are_adapted_by_timm(log, monkeypatch):
    made = []

    def create_model(name, pretrained=False, **arguments):
        made.append((pretrained, arguments.get('in_chans')))
        return of_timm.timm.models.resnet10t(**arguments)

    monkeypatch.setattr('mmseg_ext.checkpoints.timm_backbone.timm.create_model', create_model)
    model = MODELS.build(dict(type='TimmTokens', model_name='resnet10t', img_size=96, pretrained=True, in_chans=4))
    model.init_weights()
    assert (True, 4) in made
    assert lines(log) == ['resnet10t: the first convolution is adapted from RGB to 4 channels.']
