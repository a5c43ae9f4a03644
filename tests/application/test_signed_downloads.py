"""The lifetime of signed addresses, and the caching of what they lead to."""

from hypothesis import given
from hypothesis import strategies as st

from application.signed_downloads import WINDOWS_PER_LIFETIME, SignedBlob, expiry

lifetimes = st.integers(1, 3600)
times = st.floats(1_600_000_000, 4_000_000_000)


def window(seconds):
    return max(1, seconds // WINDOWS_PER_LIFETIME)


@given(seconds=lifetimes, now=times)
def test_an_address_works_for_at_least_the_time_that_is_granted_and_less_than_a_window_longer(seconds, now):
    left = expiry(seconds, now) - now
    assert seconds <= left < seconds + window(seconds)


@given(seconds=lifetimes, now=times, shares=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_addresses_asked_for_within_a_window_end_together(seconds, now, shares):
    starts = expiry(seconds, now) - seconds - window(seconds)
    first, second = (starts + window(seconds) * (1 - share) for share in shares)
    assert expiry(seconds, first) == expiry(seconds, second) == expiry(seconds, now)


@given(seconds=lifetimes, now=times)
def test_an_address_of_the_next_window_ends_later(seconds, now):
    assert expiry(seconds, now + window(seconds)) == expiry(seconds, now) + window(seconds)


@given(ends=st.integers(1_600_000_000, 4_000_000_000), left=st.floats(-100, 3600))
def test_nothing_is_cached_for_longer_than_its_address_works(ends, left):
    blob = SignedBlob(name="a" * 64, filename="x.jpg", media_type="image/jpeg", inline=True, ends=ends)
    now = ends - left
    visibility, age, stability = blob.cache_control(now).split(", ")
    assert (visibility, stability) == ("private", "immutable")
    assert 0 <= int(age.removeprefix("max-age=")) <= max(0, ends - now)
