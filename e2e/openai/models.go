package openai

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
)

// Mirror is a model that answers with the request's body, its keys in order: what a client put on the wire becomes part of
// what it makes of the answer.
const Mirror = "mirror"

// failing is what a model is called that always fails: "fail-" and the status.
const failing = "fail-"

// byModel answers for the models that are told apart by their name; it reports whether this was one.
func byModel(w http.ResponseWriter, body []byte) bool {
	var r struct {
		Model string `json:"model"`
	}
	if json.Unmarshal(body, &r) != nil {
		return false
	}
	text, ok := strings.CutPrefix(r.Model, failing)
	status, err := strconv.Atoi(text)
	if !ok || err != nil {
		return false
	}
	refuse(w, Failure{Status: status, Message: "The model " + r.Model + " fails.", Type: "invalid_request_error"})
	return true
}

// mirrored returns a request's body with its keys in order, and whether its model is [Mirror].
func mirrored(model string, body []byte) (string, bool) {
	if model != Mirror {
		return "", false
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var v any
	if decoder.Decode(&v) != nil {
		return "", false
	}
	text, err := json.Marshal(v)
	return string(text), err == nil
}

// embed answers an embeddings call with eight numbers per text, made of the text.
func embed(w http.ResponseWriter, body []byte) {
	var r struct {
		Model string          `json:"model"`
		Input json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		refuse(w, Failure{Status: http.StatusBadRequest, Message: "We could not parse the JSON body of your request: " + err.Error()})
		return
	}
	texts := []string{}
	var one string
	if json.Unmarshal(r.Input, &one) == nil {
		texts = append(texts, one)
	} else if json.Unmarshal(r.Input, &texts) != nil {
		refuse(w, Failure{Status: http.StatusBadRequest, Message: "'input' must be a text or a list of texts.", Type: "invalid_request_error"})
		return
	}
	data, tokens := []any{}, 0
	for i, text := range texts {
		tokens += count(text)
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": vector(text)})
	}
	write(w, http.StatusOK, map[string]any{
		"object": "list", "model": r.Model, "data": data, "usage": map[string]any{"prompt_tokens": tokens, "total_tokens": tokens},
	})
}

func vector(text string) []float64 {
	numbers := make([]float64, 8)
	for i := range numbers {
		h := fnv.New32a()
		_, _ = h.Write([]byte(strconv.Itoa(i) + text)) // never fails
		numbers[i] = float64(h.Sum32()%2001)/1000 - 1
	}
	return numbers
}
