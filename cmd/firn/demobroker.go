package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const demoPartitions = 4

// demoBroker is the Kafka of the demo: one in this process, with its data in the demo's directory, or a real one.
type demoBroker struct {
	addrs []string
	fake  *kfake.Cluster // nil: a real one
}

// openDemoBroker starts a broker in dir, or uses the one at addr if that is not empty.
func openDemoBroker(dir, addr string) (*demoBroker, error) {
	if addr != "" {
		return &demoBroker{addrs: []string{addr}}, nil
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(filepath.Join(dir, "kafka")))
	if err != nil {
		return nil, fmt.Errorf("start the demo's broker: %w", err)
	}
	return &demoBroker{addrs: fake.ListenAddrs(), fake: fake}, nil
}

// Close stops the broker if it is in this process.
func (b *demoBroker) Close() {
	if b.fake != nil {
		b.fake.Close()
	}
}

// demoProducer writes the shop's blocks to the broker, in order. Its state is the number of the next block, in a file:
// a block is there before the file names the next one, so that a killed demo makes its last block again.
type demoProducer struct {
	client *kgo.Client
	shop   *shop
	file   string
	next   int64 // block
	sent   int64 // changes, of this run
}

type demoState struct {
	NextBlock int64 `json:"next_block"`
}

func openDemoProducer(ctx context.Context, b *demoBroker, s *shop, dir string) (*demoProducer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.addrs...), kgo.ProducerLinger(2*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("demo producer: %w", err)
	}
	p := &demoProducer{client: client, shop: s, file: filepath.Join(dir, "demo.json")}
	topics := make([]string, len(s.tables))
	for i, t := range s.tables {
		topics[i] = shopTopic + t.name
	}
	created, err := kadm.NewClient(client).CreateTopics(ctx, demoPartitions, 1, nil, topics...)
	for _, c := range created {
		if c.Err != nil && !errors.Is(c.Err, kerr.TopicAlreadyExists) {
			err = errors.Join(err, c.Err)
		}
	}
	if err == nil {
		err = p.load()
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("demo producer: %w", err)
	}
	return p, nil
}

func (p *demoProducer) load() error {
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s demoState
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", p.file, err)
	}
	p.next = s.NextBlock
	return nil
}

// save names the next block, atomically.
func (p *demoProducer) save() error {
	b, err := json.Marshal(demoState{NextBlock: p.next})
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(p.file+".new", p.file)
}

// run makes rate changes a second until ctx ends.
func (p *demoProducer) run(ctx context.Context, rate int) error {
	start := time.Now()
	for ctx.Err() == nil {
		if err := p.produce(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("demo producer: %w", err)
		}
		due := start.Add(time.Duration(float64(p.sent) / float64(rate) * float64(time.Second)))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
		}
	}
	return nil
}

// produce writes one block and waits until the broker has it.
func (p *demoProducer) produce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for _, r := range p.shop.records(p.next, time.Now().UnixMilli()) {
		records = append(records, &kgo.Record{Topic: r.topic, Key: r.key, Value: r.value})
		if r.change {
			p.sent++
		}
	}
	if err := p.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("block %d: %w", p.next, err)
	}
	p.next++
	return p.save()
}

// Close releases the connection.
func (p *demoProducer) Close() { p.client.Close() }
