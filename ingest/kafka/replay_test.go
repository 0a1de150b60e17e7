package kafka_test

import (
	"iter"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"firn/ingest"
	"firn/ingest/kafka"
)

func someRecords(topic string, partitions int32) iter.Seq2[ingest.Record, error] {
	return func(yield func(ingest.Record, error) bool) {
		for p := range partitions {
			if !yield(ingest.Record{Topic: topic, Partition: p, Value: []byte("v")}, nil) {
				return
			}
		}
	}
}

// TestReplayNewTopic: a broker that does not know yet what another has just made is asked again.
func TestReplayNewTopic(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	const unaware = 3 // answers
	asked := 0
	fake.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		req := r.(*kmsg.MetadataRequest)
		if len(req.Topics) == 0 || asked == unaware {
			return nil, nil, false
		}
		asked++
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic = topic.Topic
			if asked > 1 { // at first: made, no partitions yet
				rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	n, err := kafka.Replay(t.Context(), kafka.Target{Brokers: fake.ListenAddrs()}, map[string]int32{"new": 3}, someRecords("new", 3))
	if err != nil || n != 3 {
		t.Errorf("%d records, %v", n, err)
	}
	if asked != unaware {
		t.Errorf("asked %d times", asked)
	}
}

func TestReplayTooFewPartitions(t *testing.T) {
	c := newCluster(t, map[string]int32{"narrow": 2})
	_, err := kafka.Replay(t.Context(), kafka.Target{Brokers: c.brokers}, map[string]int32{"narrow": 3}, someRecords("narrow", 3))
	if err == nil || !strings.Contains(err.Error(), "topic narrow has 2 partitions, the records need 3") {
		t.Error(err)
	}
}
