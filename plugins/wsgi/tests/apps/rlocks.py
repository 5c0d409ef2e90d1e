"""What can be seen of a reentrant lock, as a list, for the lock of this process and for the one in `threading.py`."""

import gc
import threading
import time
import weakref

#: Long enough that every other greenlet has run.
PAUSE = 0.02


def observe(make):
    """Return what each of the functions below sees, by its name."""
    return {look.__name__: look(make) for look in LOOKS}


def attempt(function, *arguments, **named):
    try:
        return function(*arguments, **named)
    except Exception as error:
        return type(error).__name__, str(error)


def run(*functions):
    """Run functions in threads, which are greenlets, and wait for all."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def held(lock, body):
    """Run `body` in another greenlet while this one holds the lock."""
    seen = []
    with lock:
        run(lambda: seen.append(body()))
    return seen[0]


def again(make):
    lock = make()
    seen = [attempt(lock.release), lock._is_owned()]
    with lock as entered:
        seen += [bool(entered), bool(lock.acquire()), bool(lock.acquire(False)), lock._is_owned()]
        lock.release()
        lock.release()
        seen.append(lock._is_owned())
    return [*seen, lock._is_owned(), attempt(lock.release)]


def arguments(make):
    def tries():
        lock = make()
        yield bool(lock.acquire(True, -1))
        lock.release()
        yield bool(lock.acquire(blocking=False))
        lock.release()
        yield bool(lock.acquire(timeout=1))
        lock.release()
        yield attempt(lock.acquire, False, 1)
        yield attempt(lock.acquire, True, -2)
        # eventlet accepts it.
        yield attempt(make().acquire, timeout=1e30)
        yield type(attempt(lock.acquire, other=1))
        yield lock._is_owned()

    return list(tries())


def others(make):
    lock = make()

    def other():
        return lock.acquire(False), lock.acquire(timeout=PAUSE), attempt(lock.release), lock._is_owned()

    return held(lock, other), held(lock, other), other()[:1], attempt(lock.release)


def in_turn(make):
    """Three greenlets use the lock, and each pauses inside."""
    lock, seen = make(), []

    def use(name):
        with lock, lock:
            seen.append(name)
            time.sleep(PAUSE)
            seen.append(name)

    run(*(lambda name=name: use(name) for name in "abc"))
    return seen, lock._is_owned()


def alone(make):
    """Many greenlets use the lock; the result is how many were inside at most, and how often one was."""
    lock, inside, uses = make(), [], []

    def use():
        for number in range(20):
            with lock:
                inside.append(1)
                uses.append(len(inside))
                if number % 3 == 0:
                    time.sleep(0)
                inside.pop()
            if number % 5 == 0:
                time.sleep(0)

    run(*[use] * 10)
    return max(uses), len(uses)


def conditions(make):
    """Waiting for a condition releases the lock as often as it was acquired."""
    condition, seen = threading.Condition(make()), []

    def wait():
        with condition, condition:
            seen.append("waits")
            seen.append(condition.wait(10))
            seen.append(condition._is_owned())
        seen.append(condition._is_owned())

    def notify():
        time.sleep(PAUSE)
        with condition:
            seen.append("notifies")
            condition.notify()
            # The other one waits for the lock now.
            time.sleep(PAUSE)
            seen.append("releases")

    run(wait, notify)
    with condition:
        seen.append(condition.wait(PAUSE))
    return seen, attempt(condition.notify)


def forked(make):
    """What multiprocessing and logging do with a lock in a child."""
    lock = make()

    def child():
        lock._at_fork_reinit()
        seen = lock._is_owned(), bool(lock.acquire(False)), lock._is_owned()
        lock.release()
        return seen

    lock.acquire()
    seen = []
    run(lambda: seen.append(child()))
    run(lambda: seen.append(held(lock, lambda: lock.acquire(False))))
    return seen, lock._is_owned()


def described(make):
    """The state, and how often it was acquired."""
    lock = make()
    words = repr(lock).split()
    with lock, lock:
        words += repr(lock).split()
    return [word for word in words if word.endswith("locked") or word.startswith("count")]


def weakly(make):
    lock = make()
    reference = weakref.ref(lock)
    alive = reference() is lock
    del lock
    gc.collect()
    return alive, reference()


LOOKS = [again, arguments, others, in_turn, alone, conditions, forked, described, weakly]
