"""What a server counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self.requests = Counter(
            "cnn_codes_requests", "Requests answered.", ["path", "status"], registry=kept
        )
        self.request_s = Histogram(
            "cnn_codes_request_seconds", "Seconds from head to answer.", ["path"],
            buckets=_SECONDS, registry=kept,
        )  # fmt: skip
        self.images = Counter(
            "cnn_codes_images", "Images by what came of them.", ["run", "status"], registry=kept
        )
        self.batch_images = Histogram(
            "cnn_codes_batch_images",
            "Images per batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=kept,
        )
        self.batch_s = Histogram(
            "cnn_codes_batch_seconds", "Seconds per batch.", buckets=_SECONDS, registry=kept
        )
        self.waiting = Gauge(
            "cnn_codes_waiting_images", "Images accepted, not answered.", registry=kept
        )
        self.held = Gauge("cnn_codes_upload_bytes", "Bytes of uploads in memory.", registry=kept)
        self.restarts = Gauge(
            "cnn_codes_decoder_restarts", "Decoding workers that were replaced.", registry=kept
        )
        self.loads = Counter(
            "cnn_codes_run_loads",
            "Runs loaded, or not, by name.",
            ["run", "outcome"],
            registry=kept,
        )
        self.ready = Gauge("cnn_codes_ready", "1 where predictions are answered.", registry=kept)

    def text(self) -> bytes:
        """Give all of them as text."""
        return generate_latest(self.registry)
