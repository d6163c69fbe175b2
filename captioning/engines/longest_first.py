"""In which order an engine that decodes many questions together should begin with them.

Image by image, the last image of a chunk begins with its long caption when nearly all else is answered, and the chunk
waits for it with the engine half empty. So the long answers of a group of images are begun first, and the short ones
fill up what they leave. The price is that the images of a group have to stay in the prefix cache: groups are as large
as it can hold, down to one image.
"""

from __future__ import annotations

from collections import OrderedDict

from captioning.engines.base import Request

GROUP_IMAGES = 64
GROUPS = 3  # that share the cache: one that is begun, one that ends, and room for answers
REMEMBERED = 64 * GROUP_IMAGES  # images whose later questions (of chains) go into the same group
STEP = 1 << 20  # more than any token budget


class LongestFirst:
    """Ranks questions, the lowest first: group by group as images come, within a group by token budget."""

    def __init__(self, cache_tokens: int) -> None:
        self.group_tokens = cache_tokens // GROUPS
        self._groups: OrderedDict[str, int] = OrderedDict()
        self._group = self._images = self._tokens = 0

    def rank(self, request: Request, prompt_tokens: int) -> int:
        """The rank of a question whose prompt, image included, has so many tokens."""
        group = self._groups.get(request.image_id)
        if group is None:
            group = self._groups[request.image_id] = self._join(prompt_tokens)
            if len(self._groups) > REMEMBERED:
                self._groups.popitem(last=False)
        return group * STEP - request.max_tokens

    def _join(self, tokens: int) -> int:
        """The group of an image that is new."""
        if self._images == GROUP_IMAGES or self._tokens + tokens > self.group_tokens:
            self._group, self._images, self._tokens = self._group + 1, 0, 0
        self._images += 1
        self._tokens += tokens
        return self._group
