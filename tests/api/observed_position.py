"""The real read position, with a count of the requests that began to wait for it."""


class ObservedPosition:
    def __init__(self, read_position):
        self._read_position, self.waits = read_position, 0

    @property
    def position(self):
        return self._read_position.position

    async def wait(self, position, timeout):
        self.waits += 1
        return await self._read_position.wait(position, timeout)
