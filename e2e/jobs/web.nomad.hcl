# A service: a web server in the node's network, found through a catalog, with a check.

variable "provider" {
  type    = string
  default = "nomad"
}

job "web" {
  type = "service"

  update {
    min_healthy_time  = "1s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
  }

  group "web" {
    network {
      port "http" {}
    }

    service {
      name     = "web"
      port     = "http"
      provider = var.provider
      tags     = ["e2e"]

      check {
        name     = "answers"
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }

      # Nomad's own catalog knows no checks that run in the task.
      dynamic "check" {
        for_each = var.provider == "consul" ? ["script"] : []

        content {
          name     = "looks"
          type     = check.value
          task     = "web"
          command  = "/bin/grep"
          args     = ["served by", "/local/index.html"]
          interval = "1s"
          timeout  = "5s"
        }
      }
    }

    task "web" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "httpd"
        args        = ["-f", "-p", "${NOMAD_ADDR_http}", "-h", "/local"]
      }

      template {
        destination = "local/index.html"
        data        = "served by {{ env \"NOMAD_JOB_NAME\" }}"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
