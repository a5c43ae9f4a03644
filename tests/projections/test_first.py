import time
from projections.checkpoints import Checkpoint
from domain.classification import PlannedImage

def test_all(laboratory, log, connection):
    ada = laboratory.user(); ds = laboratory.dataset(ada); laboratory.model()
    ims = [laboratory.image(ada, ds, f"{i}.png") for i in range(20)]
    job = laboratory.job(ada, dataset=ds)
    laboratory.plan(job, [PlannedImage(i, "ab"*32) for i in ims])
    laboratory.judge(job, 0, ims[:-1], ims[-1:])
    laboratory.follow()
    for t in ("users","datasets","dataset_access","images","models","classifications","work","results","failures","activity"):
        print(t, connection.execute(f"select count(*) from {t}").fetchone(), connection.execute(f"select * from {t} limit 1").fetchone())
    times=[]
    for i in range(60):
        laboratory.image(ada, ds, f"{i}.png")
        at = laboratory.projector.checkpoint().position
        ev = log.read(at, 10)
        t=time.perf_counter(); laboratory.projector.apply(ev, Checkpoint(ev[-1].position)); times.append(time.perf_counter()-t)
    times.sort(); print("p50 ms", times[30]*1e3, "p95", times[56]*1e3)
