"""`sfumato simulate`: autoscaling policies on seeded traces, judged by one figure.

A trace says when jobs come and how long they are (`traces`), a fleet of step-batching workers on a few GPUs serves
them (`fleet`), and a policy says every second how many workers each model should have (`policies`, among them the
service's own `Autoscaler`). Every policy is played with as many settings as any other (`sweep`) and judged by the
GPU-hours it takes for 99 and for 95 of 100 jobs within the objective (`judge`).
"""
