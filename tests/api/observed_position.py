"""The real read position, with a count of the requests that began to wait for it."""


class ObservedPosition:
    def __init__(self, visible):
        self._visible, self.waits = visible, 0

    @property
    def position(self):
        return self._visible.position

    async def wait(self, position, timeout):
        self.waits += 1
        return await self._visible.wait(position, timeout)
