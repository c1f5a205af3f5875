"""Images of music: its notes over time."""

from PIL import Image, ImageDraw, ImageFont

from perceivers.data.modalities.music.score import MusicScore

_KEY = 6  # pixels of a key's row
_LEFT, _BOTTOM, _EDGE = 34, 26, 8
_BLACK_KEYS = (1, 3, 6, 8, 10)
_WIDEST = 2400


def draw_piano_roll(score: MusicScore) -> Image.Image:
    """Return an image of all notes: a row for each key, time in seconds to the right, loud notes darker."""
    notes = score.notes
    low = min((note.pitch for note in notes), default=60) - 3
    high = max((note.pitch for note in notes), default=72) + 3
    seconds = max(score.seconds, 1.0)
    each = min(60.0, max(_WIDEST / seconds, 4.0))  # pixels of a second
    if seconds * each > 8 * _WIDEST:
        each = 8 * _WIDEST / seconds
    width, height = round(seconds * each), (high - low + 1) * _KEY
    image = Image.new("RGB", (_LEFT + width + _EDGE, _EDGE + height + _BOTTOM), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for pitch in range(low, high + 1):
        top = _EDGE + (high - pitch) * _KEY
        if pitch % 12 in _BLACK_KEYS:
            draw.rectangle((_LEFT, top, _LEFT + width, top + _KEY - 1), fill="#f0f0f0")
        if pitch % 12 == 0:
            draw.line((_LEFT, top + _KEY, _LEFT + width, top + _KEY), fill="#bbbbbb")
            draw.text((4, top - 4), f"C{pitch // 12 - 1}", fill="black", font=font)
    step = next((one for one in (1, 2, 5, 10, 20, 60, 120, 300) if one * each >= 40), 600)
    for second in range(0, int(seconds) + 1, step):
        x = _LEFT + round(second * each)
        draw.line((x, _EDGE, x, _EDGE + height + 3), fill="#cccccc")
        draw.text((x - 3, _EDGE + height + 6), f"{second}", fill="black", font=font)
    draw.text((8, _EDGE + height + 6), "s", fill="black", font=font)
    for note in notes:
        top = _EDGE + (high - note.pitch) * _KEY
        left = _LEFT + note.start * each
        right = max(_LEFT + note.end * each - 1, left + 1)
        light = round(170 - 150 * min(note.velocity, 127) / 127)
        draw.rectangle((left, top, right, top + _KEY - 2), fill=(light, light, 255 - light // 3))
    return image
