"""Chunks of texts, which keep characters whole."""

from perceivers.data.encoded_item import EncodedItem

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character after its first


class TextChunking:
    """Chunks of bytes. Characters stay whole: each belongs to the chunk in which it begins if it fits there."""

    unit = "bytes"

    def size(self, item: EncodedItem) -> int:
        """Return the number of bytes."""
        if item.path is not None:
            return item.path.stat().st_size
        return len(_encoded(item))

    def cut(self, item: EncodedItem, first: int, end: int) -> EncodedItem:
        """Return the text from byte `first` to before `end`."""
        if item.path is None:
            data = _encoded(item)[first:end]
        else:
            with item.open() as file:
                file.seek(first)
                data = file.read(end - first)
        data = data.lstrip(_CONTINUATION) if first else data
        is_whole = first == 0 and end >= self.size(item)
        name = item.name if is_whole else f"{item.name} from byte {first}"
        return EncodedItem(name, data=_whole_characters(data))


def _encoded(item: EncodedItem) -> bytes:
    if item.data is not None:
        return item.data
    return item.value.encode("utf-8", "surrogatepass") if isinstance(item.value, str) else b""


def _whole_characters(data: bytes) -> bytes:
    """Remove an incomplete last character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if wanted > back else data
    return data
