package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"firn/changelog"
)

// feedWriter frames the lines of a feed and writes them under a deadline. It holds a buffer only while there is
// something in it.
type feedWriter struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	a          *API
	sse        bool
	buf        *[]byte // nil: at rest
	err        error   // the first of the connection
}

// begin sends the header, so that the client knows at once that it is served.
func (o *feedWriter) begin(w http.ResponseWriter, a *API) {
	o.w, o.controller, o.a = w, http.NewResponseController(w), a
	h := w.Header()
	if o.sse {
		h["Content-Type"] = sseType
	} else {
		h["Content-Type"] = ndjsonType
	}
	w.WriteHeader(http.StatusOK)
	o.deadline()
	o.keep(o.push())
}

// push flushes what net/http holds back. A writer that holds nothing back need not know how.
func (o *feedWriter) push() error {
	if err := o.controller.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

func (o *feedWriter) deadline() {
	// Not every writer has deadlines: a test's recorder does not.
	_ = o.controller.SetWriteDeadline(time.Now().Add(o.a.o.WriteTimeout))
}

func (o *feedWriter) keep(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *feedWriter) buffer() []byte {
	if o.buf == nil {
		o.buf = takeBuffer()
	}
	return *o.buf
}

func (o *feedWriter) full() bool { return o.buf != nil && len(*o.buf) >= feedChunk }

// open begins a line; resume tells that a client that comes back may go on after seq.
func (o *feedWriter) open(seq changelog.SeqNum, resume bool) {
	if !o.sse {
		return
	}
	buf := o.buffer()
	if resume {
		buf = append(strconv.AppendUint(append(buf, "id: "...), uint64(seq), 10), '\n')
	}
	*o.buf = append(buf, "data: "...)
}

// close ends a line.
func (o *feedWriter) close() {
	end := "\n"
	if o.sse {
		end = "\n\n"
	}
	*o.buf = append(o.buffer(), end...)
}

// control adds a control line.
func (o *feedWriter) control(line []byte) {
	o.open(0, false)
	*o.buf = append(o.buffer(), line...)
	o.close()
}

// controlAt adds a control line that a client may go on after.
func (o *feedWriter) controlAt(seq changelog.SeqNum, line []byte) {
	o.open(seq, true)
	*o.buf = append(o.buffer(), line...)
	o.close()
}

// flush writes what is buffered and blocks until the client has room for it: its pace is the feed's. Error: the client
// is gone, or took nothing for WriteTimeout.
func (o *feedWriter) flush() error {
	if o.err != nil || o.buf == nil || len(*o.buf) == 0 {
		return o.err
	}
	o.deadline()
	n, err := o.w.Write(*o.buf)
	if err == nil {
		err = o.push()
	}
	o.a.metrics.feedBytes.Add(float64(n))
	*o.buf = (*o.buf)[:0]
	o.keep(err)
	return o.err
}

// rest gives the buffer back.
func (o *feedWriter) rest() {
	if o.buf != nil {
		giveBuffer(o.buf)
		o.buf = nil
	}
}

// end lifts the deadline, so that the connection can serve its next request.
func (o *feedWriter) end() {
	o.rest()
	_ = o.controller.SetWriteDeadline(time.Time{})
}
