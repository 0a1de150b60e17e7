package decode

import (
	"crypto/md5" //nolint:gosec // the connector names the placeholder's UUID by MD5
	"encoding/base64"
	"encoding/hex"

	"firn/changelog"
)

// holes is what the placeholder (2.7) looks like in columns of each type. The zero value has no placeholder.
type holes struct {
	raw                        []byte // its bytes
	plain, asHex, asB64, asURL []byte // texts
	jsonObject                 []byte // an hstore as JSON
	uuid                       []byte
}

func newHoles(placeholder []byte) holes {
	h := holes{raw: placeholder, plain: placeholder}
	h.asHex = hex.AppendEncode(nil, placeholder)
	h.asB64 = base64.StdEncoding.AppendEncode(nil, placeholder)
	h.asURL = base64.URLEncoding.AppendEncode(nil, placeholder)
	h.jsonObject = append(append(append(append([]byte(`{"`), placeholder...), `":"`...), placeholder...), `"}`...)
	sum := md5.Sum(placeholder) //nolint:gosec // as above
	sum[6] = sum[6]&0x0f | 0x30 // a name-based UUID: version 3, IETF variant
	sum[8] = sum[8]&0x3f | 0x80
	h.uuid = sum[:]
	return h
}

// text returns the forms in a column of text. A binary column that the connector writes as text is one.
func (h *holes) text(from connector) [][]byte {
	switch {
	case h.raw == nil:
		return nil
	case from == connectorPostgres:
		return [][]byte{h.plain}
	default:
		return [][]byte{h.plain, h.asHex, h.asB64, h.asURL}
	}
}

func (h *holes) json(from connector) [][]byte {
	if h.raw == nil || from != connectorPostgres {
		return h.text(from)
	}
	return [][]byte{h.plain, h.jsonObject}
}

// bytes returns the form, still in base64, of a binary column.
func (h *holes) bytes() [][]byte {
	if h.raw == nil {
		return nil
	}
	return [][]byte{h.asB64}
}

// list returns the form, as the body of the list's value, of an array.
func (h *holes) list(t *changelog.Type) [][]byte {
	if h.raw == nil {
		return nil
	}
	var elements []changelog.Value
	switch t.Fields[0].Type.Kind {
	case changelog.String:
		elements = []changelog.Value{{B: h.plain}}
	case changelog.Binary:
		elements = []changelog.Value{{B: h.raw}}
	case changelog.UUID:
		elements = []changelog.Value{{B: h.uuid}}
	case changelog.Int, changelog.Long, changelog.Date:
		for _, c := range h.raw {
			elements = append(elements, changelog.Value{I: int64(c)})
		}
	default:
		return nil
	}
	return [][]byte{changelog.AppendList(nil, t, elements)}
}

// mapping returns the form, as the body of the map's value, of an hstore as a map.
func (h *holes) mapping(t *changelog.Type) [][]byte {
	if h.raw == nil {
		return nil
	}
	s := []changelog.Value{{B: h.plain}}
	return [][]byte{changelog.AppendMap(nil, t, s, s)}
}

func anyEqual(b []byte, forms [][]byte) bool {
	for _, f := range forms {
		if len(f) == len(b) && string(f) == string(b) {
			return true
		}
	}
	return false
}
