package reports

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
)

//go:embed assets
var assets embed.FS

// WriteHTML writes the run as one page that needs nothing else: no network, no
// font, no script to be read (a script adds filters and seeking). Its content
// security policy allows the two assets by their hashes and nothing besides, so
// that console text which found a way around the escaping could still do nothing.
func WriteHTML(w io.Writer, run Run) error {
	css, err := assets.ReadFile("assets/page.css")
	if err != nil {
		return err
	}
	js, err := assets.ReadFile("assets/page.js")
	if err != nil {
		return err
	}
	t, err := template.ParseFS(assets, "assets/*.tmpl")
	if err != nil {
		return fmt.Errorf("reports: page: %w", err)
	}
	p := newPage(run)
	p.CSS, p.JS = template.CSS(css), template.JS(js)
	p.Policy = fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hash(css), hash(js))
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "page.tmpl", p); err != nil {
		return fmt.Errorf("reports: page: %w", err)
	}
	_, err = io.WriteString(w, visible(b.String()))
	return err
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
