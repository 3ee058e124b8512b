"""What Apache Kafka is started with."""

from pipeline.apache_kafka import cluster_id


def test_no_cluster_s_name_is_taken_for_an_option():
    made = {cluster_id() for _ in range(2_000)}
    assert len(made) == 2_000
    assert not any(name.startswith("-") for name in made)
