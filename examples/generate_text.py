"""Continue a text with a run of the next byte, or with a model of krasserm's that was converted.

perceivers fit book.txt --recipe text_ar --max-time 20m --out runs/book
python examples/generate_text.py runs/book "It was a dark and"
"""

import sys

import perceivers as pv


def main(run: str, prompt: str, *, length: int = 300, temperature: float = 0.8) -> str:
    """Print a prompt and its continuation, characters as soon as they are generated, and return the continuation."""
    predictor = pv.load(run)
    config = pv.GenerationConfig(temperature=temperature, top_p=0.95)
    print(prompt, end="", flush=True)
    parts: list[str] = []
    for characters in pv.generate_text(predictor, prompt, length=length, config=config):
        parts.append(characters)
        print(characters, end="", flush=True)
    print()
    return "".join(parts)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
